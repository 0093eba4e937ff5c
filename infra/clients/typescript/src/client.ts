/** The client. */

import { AGAIN, Attempts, pathOf, paused, read, type Send } from "./attempts.js";
import { RefusedError, UnavailableError, invalid, refused } from "./errors.js";
import { firstAction } from "./fallback.js";
import { uuid7 } from "./ids.js";
import { Outcomes, type Reported } from "./outcomes.js";
import { Queue, type Refusal } from "./queue.js";
import { completed, type Counts, type Settings } from "./settings.js";
import {
  activationOf,
  notFinite,
  type DecideRequest,
  type DecideResponse,
  type Explanation,
  type LoopDescription,
  type OutcomeRequest,
  type Problem,
} from "./wire.js";

const MAX_BATCH = 1_000;

interface Asked {
  request: DecideRequest & { event_id: string };
  body: string;
}

/** Asks for decisions and reports outcomes; any number of calls may be under way at once. */
export class Client {
  readonly settings: Settings;
  private readonly attempts: Attempts;
  private readonly queue: Queue;
  private readonly outcomes: Outcomes;

  /**
   * @param address for example `http://127.0.0.1:8080`; a path before the service's own is kept.
   * @param options settings, and `key`, the API key where the service has keys.
   * @throws RangeError: the address or a setting does not fit.
   */
  constructor(address: string, options: Partial<Settings> & { key?: string } = {}) {
    const { key, ...given } = options;
    if (!/^https?:\/\/[^/]/.test(address)) {
      throw new RangeError(`address: must be one of http or https, for example http://127.0.0.1:8080, is "${address}"`);
    }
    this.settings = completed(given);
    const { queue, queueLimit } = this.settings;
    this.queue = new Queue(queue === "memory" || queue === null ? undefined : queue, queueLimit);
    this.attempts = new Attempts(address.replace(/\/+$/, ""), key, this.settings);
    this.outcomes = new Outcomes(this.attempts, this.queue);
  }

  /**
   * Return the decision; `fallback` tells whether the service made it.
   *
   * @throws RefusedError: the request does not fit, or its event id belongs to another.
   * @throws UnavailableError: there was no answer in time, and no fallback is wanted.
   */
  async decide(loop: string, request: DecideRequest): Promise<DecideResponse> {
    await this.opened();
    const asked = askedOf(request);
    const remembered = this.remembered(loop, asked);
    if (remembered !== undefined) return remembered;
    if (this.rests(loop)) return this.fallBack(loop, asked, resting());
    const { timeoutMs, deadlineMs } = this.settings;
    const send: Send = { method: "POST", path: pathOf(loop, "/decide"), body: asked.body, timeoutMs };
    try {
      const answer = read<DecideResponse>(await this.attempts.answered(send, deadlineMs));
      this.attempts.counts.decided += 1;
      return answer;
    } catch (error) {
      return this.unanswered(loop, asked, error);
    }
  }

  /**
   * Return at most 1,000 decisions in the order of the requests, with the error of each that was refused.
   *
   * @throws RefusedError: there are none or too many, or the batch as a whole does not fit.
   * @throws UnavailableError: some had no answer in time, and no fallback is wanted.
   */
  async decideBatch(loop: string, requests: DecideRequest[]): Promise<(DecideResponse | RefusedError)[]> {
    await this.opened();
    if (requests.length < 1 || requests.length > MAX_BATCH) {
      throw invalid("decisions", `1 to ${MAX_BATCH} requests`, requests.length);
    }
    const asked = requests.map((request, at) => askedOf(request, `decisions[${at}].`));
    const answers = new Map<number, DecideResponse | RefusedError>();
    asked.forEach((one, at) => {
      try {
        const remembered = this.remembered(loop, one);
        if (remembered !== undefined) answers.set(at, remembered);
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
        answers.set(at, error);
      }
    });
    const error = await this.answerAll(loop, asked, answers);
    for (const [at, one] of asked.entries()) {
      if (!answers.has(at)) answers.set(at, await this.unanswered(loop, one, error ?? resting()));
    }
    return asked.map((_, at) => answers.get(at)!);
  }

  /**
   * Report at most 1,000 outcomes, all or none; those that the service cannot take now are queued.
   *
   * @throws RefusedError: one does not fit; none was taken.
   * @throws UnavailableError: there was no answer in time, and there is no queue.
   * @throws QueueFullError: the same, and the queue has no room.
   */
  async outcome(loop: string, ...outcomes: OutcomeRequest[]): Promise<Reported> {
    await this.opened();
    return this.outcomes.report(loop, outcomes);
  }

  /** Activate a deferred decision, if it drew the action named; queued and refused as an outcome is. */
  activate(loop: string, eventId: string, slot = "", actionId?: string): Promise<Reported> {
    return this.outcome(loop, activationOf(eventId, slot, actionId));
  }

  /**
   * Return how a decision came about, its draw repeated.
   *
   * @throws RefusedError: there is no such decision (`UnknownError`), or it was erased (`ErasedError`).
   * @throws UnavailableError: there was no answer in time.
   */
  explain(eventId: string, loop = ""): Promise<Explanation> {
    const of = loop === "" ? "" : `?loop=${encodeURIComponent(loop)}`;
    return this.get(`/v1/decisions/${encodeURIComponent(eventId)}${of}`);
  }

  /** Return the names of the loops that the key may see. Rejects as `explain`. */
  async loops(): Promise<string[]> {
    return (await this.get<{ loops: string[] }>("/v1/loops")).loops;
  }

  /** Return a loop's settings, versions, guard and counters. Rejects as `explain`. */
  describe(loop: string): Promise<LoopDescription> {
    return this.get(pathOf(loop, ""));
  }

  /** Send what is queued, trying for so many milliseconds; return how many outcomes still wait. */
  async flush(ms = 10_000): Promise<number> {
    await this.opened();
    return this.outcomes.flush(ms);
  }

  /** Return how many outcomes are in the queue. */
  async waiting(): Promise<number> {
    await this.queue.open();
    return this.queue.waiting;
  }

  /** Return the outcomes from the queue that the service refused; they count towards the queue's limit. */
  async refusals(): Promise<Refusal[]> {
    await this.queue.open();
    return this.queue.refusals();
  }

  /** Forget the outcomes from the queue that the service refused, and return their number. */
  async forgetRefusals(): Promise<number> {
    await this.queue.open();
    return this.queue.forgetRefusals();
  }

  /** Return what the client did since it was opened. */
  counts(): Counts {
    return { ...this.attempts.counts };
  }

  /** Send what is queued once more and take no more calls; what is left in memory is lost, and told. */
  async close(): Promise<void> {
    if (!this.attempts.close()) return;
    await this.queue.open();
    await this.outcomes.end();
  }

  private async opened(): Promise<void> {
    this.attempts.checkOpen();
    await this.queue.open();
  }

  private async get<T>(path: string): Promise<T> {
    this.attempts.checkOpen();
    const { timeoutMs, deadlineMs } = this.settings;
    return read<T>(await this.attempts.answered({ method: "GET", path, timeoutMs }, deadlineMs));
  }

  private rests(loop: string): boolean {
    return this.settings.fallback === "first" && this.attempts.rests(loop);
  }

  /** Put the service's answers to those who have none, and return why some still have none. */
  private async answerAll(
    loop: string,
    asked: Asked[],
    answers: Map<number, DecideResponse | RefusedError>,
  ): Promise<UnavailableError | undefined> {
    const { deadlineMs, batchTimeoutMs: timeoutMs, firstWaitMs, longestWaitMs } = this.settings;
    const deadline = performance.now() + deadlineMs + timeoutMs;
    let wait = firstWaitMs;
    for (;;) {
      const left = [...asked.keys()].filter((at) => !answers.has(at));
      if (left.length === 0) return undefined;
      if (this.rests(loop)) return resting();
      const body = `{"decisions":[${left.map((at) => asked[at]!.body).join(",")}]}`;
      const send: Send = { method: "POST", path: pathOf(loop, "/decide/batch"), body, timeoutMs };
      try {
        const reply = await this.attempts.answered(send, deadline - performance.now());
        const said = read<{ decisions: (DecideResponse | Problem)[] }>(reply).decisions;
        if (said.length !== left.length) {
          return new UnavailableError(`${said.length} answers to ${left.length} questions`, true);
        }
        left.forEach((at, place) => this.take(at, said[place]!, answers));
      } catch (error) {
        if (error instanceof UnavailableError) return error;
        throw error;
      }
      if (left.every((at) => answers.has(at))) return undefined;
      if (performance.now() + wait >= deadline) {
        return new UnavailableError("the service took only some questions of the batch");
      }
      this.attempts.counts.retried += 1;
      await paused(wait);
      wait = Math.min(2 * wait, longestWaitMs);
    }
  }

  /** Put one answer of a batch in its place, unless another attempt may change it. */
  private take(at: number, said: DecideResponse | Problem, answers: Map<number, DecideResponse | RefusedError>): void {
    if ("action_id" in said) {
      this.attempts.counts.decided += 1;
      answers.set(at, said);
    } else if (!AGAIN.has(said.status)) {
      answers.set(at, refused(said));
    }
  }

  /** Return the fallback's answer where there was none of the service; rethrow any other error. */
  private async unanswered(loop: string, asked: Asked, error: unknown): Promise<DecideResponse> {
    if (!(error instanceof UnavailableError)) throw error;
    this.attempts.rest(loop);
    if (this.settings.fallback === "none") throw error;
    return this.fallBack(loop, asked, error);
  }

  private async fallBack(loop: string, asked: Asked, error: UnavailableError): Promise<DecideResponse> {
    const answer = firstAction(asked.request, { reason: error.message, maybeLogged: error.maybeTaken });
    await this.queue.remember(loop, asked.body, answer);
    this.attempts.counts.fallbacks += 1;
    this.attempts.counts.maybeLogged += error.maybeTaken ? 1 : 0;
    this.attempts.tell({ kind: "decision", loop, eventId: answer.event_id, reason: error.message });
    return answer;
  }

  /**
   * Return the answer that the fallback gave to the same question before.
   *
   * @throws EventIdReusedError: it gave one to another question.
   */
  private remembered(loop: string, asked: Asked): DecideResponse | undefined {
    const found = this.queue.remembered(loop, asked.request.event_id);
    if (found === undefined || found.asked === asked.body) return found?.answer;
    const detail = "this event_id was used for another request";
    throw refused({ title: "Conflict", status: 409, detail, field: "event_id", got: asked.request.event_id });
  }
}

/** Return a question with an event id, under which it may be asked again. */
function askedOf(given: DecideRequest, prefix = ""): Asked {
  const at = notFinite(given);
  if (at !== undefined) throw invalid(`${prefix}${at}`, "a finite number", "NaN or infinity");
  const request = { ...given, event_id: given.event_id ?? uuid7() };
  return { request, body: JSON.stringify(request) };
}

function resting(): UnavailableError {
  return new UnavailableError("the service did not answer a moment ago, and is left alone");
}

