/**
 * The shapes of requests and answers, as the service's OpenAPI document has them. An answer may have fields that this
 * version does not know, so an older client goes on with a newer service.
 */

import type { components } from "./schema.js";

type Shapes = components["schemas"];

export type Action = Shapes["Action"];
export type Slot = Shapes["Slot"];
export type DecideRequest = Shapes["DecideRequest"];
export type OutcomeRequest = Shapes["OutcomeRequest"];
export type Ranked = Shapes["Ranked"];
export type SlotAnswer = Shapes["SlotAnswer"];
export type Explanation = Shapes["Explanation"];
export type LoopDescription = Shapes["LoopDescription"];
export type Problem = Partial<Shapes["Problem"]> & { status: number; detail: string };

/** Why the service did not decide. The decision is no part of the loop's history: nothing is learned from it. */
export interface Fallback {
  /** What went wrong, as a sentence. */
  reason: string;
  /** Whether the service may hold a decision under this id that the application never saw. */
  maybeLogged: boolean;
}

/** The answer; `fallback` is there where the client took the first action itself. */
export type DecideResponse = Shapes["DecideResponse"] & { fallback?: Fallback };

/** What may be said of an outcome beside its value. */
export interface OutcomeOptions {
  slot?: string;
  name?: string;
  ts?: string;
  key?: string;
}

/**
 * Return the report of what followed a decision; it names the action, so it can count for no other.
 *
 * @throws RangeError: the decision has no such slot.
 */
export function outcomeOf(answer: DecideResponse, value: number, options: OutcomeOptions = {}): OutcomeRequest {
  const { slot = "", name = "reward", ts, key } = options;
  const action = slot === "" ? answer.action_id : answer.slots?.find((each) => each.id === slot)?.action_id;
  if (action === undefined) {
    const known = (answer.slots ?? []).map((each) => each.id).join(", ");
    throw new RangeError(`slot: must be one of [${known}], is ${JSON.stringify(slot)}`);
  }
  const report: OutcomeRequest = { event_id: answer.event_id, value, slot, name, action_id: action };
  if (ts !== undefined) report.ts = ts;
  if (key !== undefined) report.idempotency_key = key;
  return report;
}

/** Return the report that activates a deferred decision; a repeat counts once. */
export function activationOf(eventId: string, slot = "", actionId?: string): OutcomeRequest {
  const report: OutcomeRequest = { event_id: eventId, value: 1, slot, name: "activation", idempotency_key: "activation" };
  if (actionId !== undefined) report.action_id = actionId;
  return report;
}

/**
 * Return the path of the first NaN or infinity, or undefined. JSON has neither: they would be written as null, which
 * the service reads as missing.
 */
export function notFinite(value: unknown, path = ""): string | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? undefined : path || "body";
  if (typeof value !== "object" || value === null) return undefined;
  for (const [name, item] of Object.entries(value)) {
    const inner = Array.isArray(value) ? `${path}[${name}]` : path ? `${path}.${name}` : name;
    const found = notFinite(item, inner);
    if (found !== undefined) return found;
  }
  return undefined;
}
