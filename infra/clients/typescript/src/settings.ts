/** How long a call may take and what becomes of it when the service does not answer. */

import type { Store } from "./store.js";

/** Something that the loop will not learn from. */
export interface Loss {
  /** A decision that the fallback took, or an outcome that was refused or given up. */
  kind: "decision" | "outcome";
  loop: string;
  eventId: string;
  /** Why, as a sentence. */
  reason: string;
}

/** Settings of a client; times in milliseconds. */
export interface Settings {
  /** Longest wait for one answer. */
  timeoutMs: number;
  /** Longest a call may take with all its attempts; a batch may take `batchTimeoutMs` more. */
  deadlineMs: number;
  /** Longest wait for one answer to a list. */
  batchTimeoutMs: number;
  /** Wait before the second attempt; each further one is twice as long. */
  firstWaitMs: number;
  /** Longest wait between two attempts. */
  longestWaitMs: number;
  /** How long a loop that did not answer is left alone. */
  restMs: number;
  /** `first` answers with the first action where the service does not; `none` rejects. */
  fallback: "first" | "none";
  /** Where outcomes wait: `memory` loses them with the process, a store does not; `null` keeps none, and reporting rejects. */
  queue: Store | "memory" | null;
  /** Most outcomes that wait. */
  queueLimit: number;
  /** Told of every loss; it must not throw. */
  onLoss?: (loss: Loss) => void;
}

export const DEFAULTS: Settings = {
  timeoutMs: 1_000,
  deadlineMs: 2_000,
  batchTimeoutMs: 10_000,
  firstWaitMs: 50,
  longestWaitMs: 1_000,
  restMs: 1_000,
  fallback: "first",
  queue: "memory",
  queueLimit: 10_000,
};

/** What a client did since it was opened. */
export interface Counts {
  /** Decisions of the service. */
  decided: number;
  /** Decisions that the fallback took. */
  fallbacks: number;
  /** Of these, those of which the service may hold a decision that nobody saw. */
  maybeLogged: number;
  /** Attempts after the first. */
  retried: number;
  /** Outcomes that the service took, from the queue too. */
  accepted: number;
  /** Outcomes that were put into the queue. */
  queued: number;
  /** Outcomes from the queue that the service refused. */
  refused: number;
  /** Outcomes that were still in memory when the client was closed. */
  lost: number;
}

/**
 * Return all settings, those not given by their defaults.
 *
 * @throws RangeError: one does not fit; names it.
 */
export function completed(given: Partial<Settings>): Settings {
  const settings = { ...DEFAULTS, ...given };
  for (const name of ["timeoutMs", "deadlineMs", "batchTimeoutMs", "firstWaitMs", "longestWaitMs", "restMs"] as const) {
    const zero = name === "firstWaitMs" || name === "restMs";
    if (!(Number.isFinite(settings[name]) && (settings[name] > 0 || (zero && settings[name] === 0)))) {
      throw new RangeError(`${name}: must be ${zero ? "0 or more" : "more than 0"} milliseconds, is ${settings[name]}`);
    }
  }
  if (!Number.isSafeInteger(settings.queueLimit) || settings.queueLimit < 1) {
    throw new RangeError(`queueLimit: must be a whole number of at least 1, is ${settings.queueLimit}`);
  }
  return settings;
}
