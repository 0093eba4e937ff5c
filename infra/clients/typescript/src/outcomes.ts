/** The calls that report outcomes, and the queue of those that the service could not take. */

import { type Attempts, pathOf, paused, problemIn, read, type Send } from "./attempts.js";
import { UnavailableError, invalid } from "./errors.js";
import { uuid7 } from "./ids.js";
import type { Queue } from "./queue.js";
import { notFinite, type OutcomeRequest } from "./wire.js";

const MAX_OUTCOMES = 1_000;
const AT_ONCE = 500;

/** What became of the outcomes of one call. */
export interface Reported {
  /** How many the service has on disk. */
  accepted: number;
  /** How many wait in the client's queue. */
  queued: number;
}

/** Reports outcomes. */
export class Outcomes {
  private draining = false;

  constructor(
    private readonly attempts: Attempts,
    private readonly queue: Queue,
  ) {}

  async report(loop: string, outcomes: OutcomeRequest[]): Promise<Reported> {
    if (outcomes.length < 1 || outcomes.length > MAX_OUTCOMES) {
      throw invalid("outcomes", `1 to ${MAX_OUTCOMES} reports a call`, outcomes.length);
    }
    outcomes.forEach((outcome, at) => {
      const found = notFinite(outcome.value, outcomes.length > 1 ? `[${at}].value` : "value");
      if (found !== undefined) throw invalid(found, "a finite number", outcome.value);
    });
    const keyed = outcomes.map((outcome) => this.keyed(loop, outcome));
    const { queue, deadlineMs } = this.attempts.settings;
    if (queue === null) return { accepted: await this.sent(loop, keyed, deadlineMs), queued: 0 };
    if (this.attempts.rests(loop)) return this.queued(loop, keyed);
    let accepted: number;
    try {
      accepted = await this.sent(loop, keyed, 0);
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      this.attempts.rest(loop);
      return this.queued(loop, keyed);
    }
    if (this.queue.waiting > 0) await this.drain(performance.now(), true); // some of what waited goes with it
    return { accepted, queued: 0 };
  }

  async flush(ms: number): Promise<number> {
    const until = performance.now() + ms;
    let wait = this.attempts.settings.firstWaitMs;
    for (;;) {
      await this.drain(until, false);
      if (this.queue.waiting === 0 || performance.now() + wait >= until) return this.queue.waiting;
      await paused(wait);
      wait = Math.min(2 * wait, this.attempts.settings.longestWaitMs);
    }
  }

  /** Send what is queued once more; what is left in memory is lost, and told. */
  async end(): Promise<void> {
    if (this.queue.waiting === 0) return;
    await this.drain(performance.now() + this.attempts.settings.deadlineMs, false);
    if (this.queue.kept) return;
    const reason = "the client was closed, and its queue is in memory";
    for (const loop of this.queue.loops()) {
      for (const { outcome } of this.queue.oldest(loop, this.queue.waiting)) {
        this.attempts.counts.lost += 1;
        this.attempts.tell({ kind: "outcome", loop, eventId: outcome.event_id, reason });
      }
    }
  }

  /**
   * Return an outcome that may be sent twice; one of a fallback names its action, so that it counts for no other: the
   * service may hold a decision under the fallback's event id that the application never saw.
   */
  private keyed(loop: string, outcome: OutcomeRequest): OutcomeRequest {
    const keyed = { ...outcome, idempotency_key: outcome.idempotency_key ?? uuid7() };
    const found = this.queue.remembered(loop, outcome.event_id)?.answer;
    if (found === undefined || (outcome.action_id ?? null) !== null) return keyed;
    const slot = found.slots?.find((each) => each.id === outcome.slot);
    return { ...keyed, action_id: slot?.action_id ?? found.action_id };
  }

  private async sent(loop: string, outcomes: OutcomeRequest[], ms: number): Promise<number> {
    const { timeoutMs, batchTimeoutMs } = this.attempts.settings;
    const one = outcomes.length === 1;
    const send: Send = {
      method: "POST",
      path: pathOf(loop, "/outcomes"),
      body: JSON.stringify(one ? outcomes[0] : outcomes),
      timeoutMs: one ? timeoutMs : batchTimeoutMs,
    };
    const { accepted } = read<{ accepted: number }>(await this.attempts.answered(send, ms));
    this.attempts.counts.accepted += accepted;
    return accepted;
  }

  /** Queue outcomes with the moment at which they were reported: they may be sent hours later. */
  private async queued(loop: string, outcomes: OutcomeRequest[]): Promise<Reported> {
    const now = new Date().toISOString();
    await this.queue.put(
      loop,
      outcomes.map((each) => ({ ...each, ts: each.ts ?? now })),
    );
    this.attempts.counts.queued += outcomes.length;
    return { accepted: 0, queued: outcomes.length };
  }

  /** Send what is queued: a list of every loop at least, and others until the clock says `until`. */
  private async drain(until: number, patient: boolean): Promise<void> {
    if (this.draining) return; // another call is at it
    this.draining = true;
    try {
      for (const loop of this.queue.loops()) {
        if (!(patient && this.attempts.rests(loop))) await this.drainLoop(loop, until);
      }
    } finally {
      this.draining = false;
    }
  }

  private async drainLoop(loop: string, until: number): Promise<void> {
    const { batchTimeoutMs: timeoutMs } = this.attempts.settings;
    let size = AT_ONCE;
    for (;;) {
      const rows = this.queue.oldest(loop, size);
      if (rows.length === 0) return;
      const body = JSON.stringify(rows.map((row) => row.outcome));
      let reply;
      try {
        reply = await this.attempts.answered({ method: "POST", path: pathOf(loop, "/outcomes"), body, timeoutMs }, 0);
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error;
        this.attempts.rest(loop);
        return;
      }
      if (reply.status >= 200 && reply.status < 300) {
        await this.queue.remove(rows);
        this.attempts.counts.accepted += rows.length;
        size = Math.min(2 * size, AT_ONCE);
      } else if (reply.status === 401 || reply.status === 403) {
        this.attempts.rest(loop); // not the outcomes' fault: they wait for a key that may
        return;
      } else if (rows.length > 1) {
        size = Math.floor(rows.length / 2); // a list is taken as a whole or not at all: halve it to find the one at fault
        continue;
      } else {
        const [row] = rows;
        const problem = problemIn(reply);
        await this.queue.refuse(row!, problem);
        this.attempts.counts.refused += 1;
        this.attempts.tell({ kind: "outcome", loop, eventId: row!.outcome.event_id, reason: problem.detail });
      }
      if (performance.now() >= until) return;
    }
  }
}
