/**
 * Attempts: which answers another one may change, how long to wait between them, and when to leave a loop alone.
 *
 * What makes a second attempt safe is the same in all calls: a decision is asked for by its event id, under which the
 * service gives the same answer, and an outcome has an idempotency key, under which it counts once.
 */

import { UnavailableError, refused } from "./errors.js";
import type { Counts, Loss, Settings } from "./settings.js";
import type { Problem } from "./wire.js";

/** Statuses that another attempt may change. */
export const AGAIN: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const NOTHING_WRITTEN = ["urn:decision:problem:unavailable", "urn:decision:problem:too-many-requests"];
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"]);
const LONGEST_WAIT_MS = 3_600_000;

/** An answer of the service. */
export interface Reply {
  status: number;
  text: string;
  retryAfterMs: number;
}

interface NoReply {
  reason: string;
  maybeTaken: boolean;
}

/** A request. */
export interface Send {
  method: "GET" | "POST";
  path: string;
  body?: string;
  timeoutMs: number;
}

/** What the calls of one client share. */
export class Attempts {
  readonly counts: Counts = {
    decided: 0,
    fallbacks: 0,
    maybeLogged: 0,
    retried: 0,
    accepted: 0,
    queued: 0,
    refused: 0,
    lost: 0,
  };
  private readonly restsUntil = new Map<string, number>();
  private closed = false;

  constructor(
    private readonly address: string,
    private readonly key: string | undefined,
    readonly settings: Settings,
  ) {}

  /**
   * Return the first answer that another attempt would not change.
   *
   * @param ms how long to go on; 0 is one attempt.
   * @throws UnavailableError: there was none in time.
   */
  async answered(send: Send, ms: number): Promise<Reply> {
    const deadline = performance.now() + ms;
    let wait = this.settings.firstWaitMs;
    let timeoutMs = send.timeoutMs;
    let maybe = false;
    for (;;) {
      const reply = await this.sent({ ...send, timeoutMs });
      if ("status" in reply && !AGAIN.has(reply.status)) return reply;
      const why = "status" in reply ? whyOf(reply) : reply;
      maybe ||= why.maybeTaken;
      const asked = "status" in reply ? reply.retryAfterMs : 0;
      const pause = Math.max(asked, wait * (0.5 + 0.5 * Math.random())); // clients are not to come all at once
      const left = deadline - performance.now() - pause;
      if (left <= 0) throw new UnavailableError(why.reason, maybe);
      this.counts.retried += 1;
      await paused(pause);
      timeoutMs = Math.min(timeoutMs, left);
      wait = Math.min(2 * wait, this.settings.longestWaitMs);
    }
  }

  /** Return whether a loop that did not answer is still left alone. */
  rests(loop: string): boolean {
    return performance.now() < (this.restsUntil.get(loop) ?? 0);
  }

  /** Leave a loop alone for a while, since it did not answer. */
  rest(loop: string): void {
    this.restsUntil.set(loop, performance.now() + this.settings.restMs);
  }

  /** Tell the application of a loss. */
  tell(loss: Loss): void {
    this.settings.onLoss?.(loss);
  }

  /** @throws UnavailableError: the client was closed. */
  checkOpen(): void {
    if (this.closed) throw new UnavailableError("the client is closed");
  }

  /** Take no more calls, and return whether any were taken before. */
  close(): boolean {
    const was = this.closed;
    this.closed = true;
    return !was;
  }

  private async sent(send: Send): Promise<Reply | NoReply> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (this.key !== undefined) headers["authorization"] = `Bearer ${this.key}`;
    try {
      const answer = await fetch(this.address + send.path, {
        method: send.method,
        headers,
        redirect: "manual",
        signal: AbortSignal.timeout(Math.max(1, Math.ceil(send.timeoutMs))),
        ...(send.body === undefined ? {} : { body: send.body }),
      });
      if (answer.status === 0) return { reason: "the answer leads elsewhere", maybeTaken: false };
      return { status: answer.status, text: await answer.text(), retryAfterMs: waitOf(answer) };
    } catch (error) {
      return noReply(error);
    }
  }
}

/** Return the path of something of a loop. */
export function pathOf(loop: string, what: string): string {
  return `/v1/loops/${encodeURIComponent(loop)}${what}`;
}

/**
 * Return what an answer says.
 *
 * @throws RefusedError: it says no.
 * @throws UnavailableError: it cannot be read, so it is not the service's.
 */
export function read<T>(reply: Reply): T {
  if (reply.status < 200 || reply.status >= 300) throw refused(problemIn(reply));
  try {
    return JSON.parse(reply.text) as T;
  } catch (error) {
    throw new UnavailableError(`the answer cannot be read: ${String(error)}`, true);
  }
}

/** Return the problem document of an answer, or one made of its status where it has none: a proxy's, for example. */
export function problemIn(reply: Reply): Problem {
  try {
    const found: unknown = JSON.parse(reply.text);
    if (typeof found === "object" && found !== null && "detail" in found && typeof found.detail === "string") {
      return { ...found, detail: found.detail, status: reply.status };
    }
  } catch {
    // no JSON, so no document of the service's
  }
  return { status: reply.status, detail: `the answer was ${reply.status}, without a problem document` };
}

/** Wait. */
export function paused(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function whyOf(reply: Reply): NoReply {
  const problem = problemIn(reply);
  return { reason: problem.detail, maybeTaken: !NOTHING_WRITTEN.includes(problem.type ?? "") };
}

function waitOf(answer: Response): number {
  const seconds = Number(answer.headers.get("retry-after") ?? 0); // NaN for a date, as proxies send it
  return seconds > 0 ? Math.min(1_000 * seconds, LONGEST_WAIT_MS) : 0;
}

function noReply(error: unknown): NoReply {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  return { reason: cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause), maybeTaken: !NEVER_SENT.has(code) };
}
