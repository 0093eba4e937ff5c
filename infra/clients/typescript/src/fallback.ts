/** What the application would have done without the service: its own order, as the baseline `first` takes it. */

import { invalid } from "./errors.js";
import type { DecideRequest, DecideResponse, Fallback, Ranked } from "./wire.js";

/**
 * Return the answer that takes the first action, or the first that each slot may have.
 *
 * @throws RefusedError: no action is left to choose, or a slot is left without one.
 */
export function firstAction(request: DecideRequest, fallback: Fallback): DecideResponse {
  const excluded = new Set(request.excluded_actions ?? []);
  const eligible = request.actions.map((action) => action.id).filter((id) => !excluded.has(id));
  if (eligible.length === 0) {
    throw invalid("actions", "at least one that is not excluded", `${request.actions.length} actions, none left`);
  }
  const told = { event_id: request.event_id ?? "", propensity: 1, policy_version: "fallback:first", mode: "fallback" };
  if (request.slots === undefined || request.slots === null) {
    const action = eligible[0]!;
    return { ...told, action_id: action, ranking: certain(action, eligible), fallback };
  }
  if (request.slots.length === 0) throw invalid("slots", "at least one slot", "none");
  const allowed = request.slots.map((slot) => {
    const free = eligible.filter((id) => !(slot.excluded_actions ?? []).includes(id));
    const wanted = free.filter((id) => id === slot.baseline_action);
    return [...wanted, ...free.filter((id) => id !== slot.baseline_action)];
  });
  const taken = filled(allowed);
  if (taken === undefined) {
    throw invalid("slots", "slots that can all be filled", `${eligible.length} actions for ${allowed.length}`);
  }
  const slots = request.slots.map((slot, at) => {
    const action = taken[at]!;
    return { id: slot.id, action_id: action, propensity: 1, ranking: certain(action, allowed[at]!) };
  });
  return { ...told, action_id: taken[0]!, ranking: slots[0]!.ranking, slots, fallback };
}

/**
 * Return an action for each slot, none twice; undefined when there is no way. A slot takes its first choice among what
 * leaves every later slot one, as the service does.
 */
function filled(allowed: string[][]): string[] | undefined {
  if (!fillable(allowed, new Set())) return undefined;
  const taken: string[] = [];
  allowed.forEach((choices, at) => {
    const fits = (action: string) => fillable(allowed.slice(at + 1), new Set([...taken, action]));
    taken.push(choices.find((action) => !taken.includes(action) && fits(action))!);
  });
  return taken;
}

/** Return whether every slot can have an action of its own, none of those taken (Kuhn's algorithm, 1955). */
function fillable(allowed: string[][], taken: Set<string>): boolean {
  const at = new Map<string, number>();
  const place = (slot: number, tried: Set<string>): boolean => {
    for (const action of allowed[slot]!) {
      if (taken.has(action) || tried.has(action)) continue;
      tried.add(action);
      const holder = at.get(action);
      if (holder === undefined || place(holder, tried)) {
        at.set(action, slot);
        return true;
      }
    }
    return false;
  };
  return allowed.every((_, slot) => place(slot, new Set()));
}

function certain(chosen: string, free: string[]): Ranked[] {
  const others = free.filter((id) => id !== chosen).map((id) => ({ id, probability: 0 }));
  return [{ id: chosen, probability: 1 }, ...others];
}
