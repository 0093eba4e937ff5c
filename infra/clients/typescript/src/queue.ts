/** Outcomes that wait for the service, and fallback answers that must be given again; in memory, or in a store too. */

import { QueueFullError } from "./errors.js";
import type { Store } from "./store.js";
import type { DecideResponse, OutcomeRequest, Problem } from "./wire.js";

/** An outcome in the queue. */
export interface Waiting {
  id: number;
  loop: string;
  outcome: OutcomeRequest;
}

/** An outcome that the service refused when it was sent from the queue. */
export interface Refusal {
  loop: string;
  outcome: OutcomeRequest;
  problem: Problem;
}

/** A fallback answer and the question that it was given to. */
interface Remembered {
  loop: string;
  asked: string;
  answer: DecideResponse;
}

/** A line of the journal: what it says is so from then on; twice is as once. */
type Line =
  | { put: Waiting[] }
  | { gone: number[] }
  | { refused: Refusal; id: number }
  | { forgot: true }
  | { fallback: Remembered };

const COMPACT_LINES = 1_000;

/** Outcomes in the order of arrival. */
export class Queue {
  private waitingById = new Map<number, Waiting>();
  private refusedById = new Map<number, Refusal>();
  private fallbacks = new Map<string, Remembered>();
  private next = 0;
  private lines = 0;
  private turn: Promise<void> = Promise.resolve();
  private opening: Promise<void> | undefined;

  /**
   * @param store where it outlives the process; undefined for memory alone.
   * @param limit most outcomes that wait or were refused, and most fallback answers that are remembered.
   */
  constructor(
    private readonly store: Store | undefined,
    private readonly limit: number,
  ) {}

  get kept(): boolean {
    return this.store !== undefined;
  }

  /** Read what the store has; does so once. */
  open(): Promise<void> {
    this.opening ??= this.read();
    return this.opening;
  }

  get waiting(): number {
    return this.waitingById.size;
  }

  /** The loops that outcomes wait for. */
  loops(): string[] {
    return [...new Set([...this.waitingById.values()].map((each) => each.loop))].sort();
  }

  /**
   * Keep outcomes, all or none.
   *
   * @throws QueueFullError: there is no room for all of them.
   */
  async put(loop: string, outcomes: OutcomeRequest[]): Promise<void> {
    const held = this.waitingById.size + this.refusedById.size;
    if (held + outcomes.length > this.limit) {
      const more = `${outcomes.length} more do not fit`;
      throw new QueueFullError(`the queue holds ${held} outcomes of at most ${this.limit}; ${more}`);
    }
    await this.write({ put: outcomes.map((outcome) => ({ id: this.next++, loop, outcome })) });
  }

  /** Return at most `count` of the outcomes of a loop that wait longest. */
  oldest(loop: string, count: number): Waiting[] {
    const found: Waiting[] = [];
    for (const each of this.waitingById.values()) {
      if (found.length >= count) break;
      if (each.loop === loop) found.push(each);
    }
    return found;
  }

  /** Forget outcomes that the service has. */
  async remove(taken: Waiting[]): Promise<void> {
    await this.write({ gone: taken.map((each) => each.id) });
  }

  /** Put an outcome aside that the service does not take. */
  async refuse(one: Waiting, problem: Problem): Promise<void> {
    await this.write({ refused: { loop: one.loop, outcome: one.outcome, problem }, id: one.id });
  }

  /** What the service refused, oldest first. */
  refusals(): Refusal[] {
    return [...this.refusedById.values()];
  }

  /** Forget what the service refused, and return how many outcomes that were. */
  async forgetRefusals(): Promise<number> {
    const count = this.refusedById.size;
    await this.write({ forgot: true });
    return count;
  }

  /** Keep a fallback answer, to give it again; the oldest goes when there are too many. */
  async remember(loop: string, asked: string, answer: DecideResponse): Promise<void> {
    await this.write({ fallback: { loop, asked, answer } });
  }

  /** Return the question and the fallback answer that was given under an event id, or undefined. */
  remembered(loop: string, eventId: string): Remembered | undefined {
    return this.fallbacks.get(JSON.stringify([loop, eventId]));
  }

  private async read(): Promise<void> {
    for (const text of (await this.store?.load()) ?? []) {
      let line: Line;
      try {
        line = JSON.parse(text) as Line;
      } catch (error) {
        throw new Error(`the store of the queue holds a line that is none of ours: ${String(error)}`);
      }
      this.lines += 1;
      this.apply(line);
    }
  }

  /** Write a line, then do what it says; one after another, and at once where it is memory alone. */
  private write(line: Line): Promise<void> {
    const store = this.store;
    if (store === undefined) {
      this.apply(line);
      return Promise.resolve();
    }
    const done = this.turn.then(async () => {
      await store.append(JSON.stringify(line));
      this.lines += 1;
      this.apply(line);
      const live = this.waitingById.size + this.refusedById.size + this.fallbacks.size;
      if (this.lines > 2 * live + COMPACT_LINES) await this.compact(store);
    });
    this.turn = done.catch(() => undefined);
    return done;
  }

  private async compact(store: Store): Promise<void> {
    const lines: Line[] = [{ put: [...this.waitingById.values()] }];
    for (const [id, refused] of this.refusedById) lines.push({ refused, id });
    for (const fallback of this.fallbacks.values()) lines.push({ fallback });
    await store.rewrite(lines.map((line) => JSON.stringify(line)));
    this.lines = lines.length;
  }

  private apply(line: Line): void {
    if ("put" in line) {
      for (const each of line.put) {
        this.waitingById.set(each.id, each);
        this.next = Math.max(this.next, each.id + 1);
      }
    } else if ("gone" in line) {
      for (const id of line.gone) this.waitingById.delete(id);
    } else if ("refused" in line) {
      this.waitingById.delete(line.id);
      this.refusedById.set(line.id, line.refused);
      this.next = Math.max(this.next, line.id + 1);
    } else if ("forgot" in line) {
      this.refusedById.clear();
    } else {
      const key = JSON.stringify([line.fallback.loop, line.fallback.answer.event_id]);
      if (!this.fallbacks.has(key)) this.fallbacks.set(key, line.fallback);
      const first = this.fallbacks.keys().next();
      if (this.fallbacks.size > this.limit && !first.done) this.fallbacks.delete(first.value);
    }
  }
}
