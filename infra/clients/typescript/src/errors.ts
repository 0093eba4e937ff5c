/**
 * Errors of the client.
 *
 * ClientError
 * ├── RefusedError            the request can never be taken as it is; `problem` names the field
 * │   ├── KeyRefusedError     no key, or one that may not ask this
 * │   ├── UnknownError        there is no such loop, or no decision under this id
 * │   ├── EventIdReusedError  the id belongs to the decision of another request
 * │   └── ErasedError         the decision under this id was erased
 * ├── UnavailableError        no answer in time; the same request may be sent again
 * └── QueueFullError          the service takes no outcomes and the queue has no room; nothing of the call was kept
 */

import type { Problem } from "./wire.js";

/** An error of this client; its message is a sentence. */
export class ClientError extends Error {
  override name: string = this.constructor.name;
}

/** The request was refused. */
export class RefusedError extends ClientError {
  constructor(readonly problem: Problem) {
    super(problem.detail || `the answer was ${problem.status}`);
  }

  /** The field at fault, as a path. */
  get field(): string | undefined {
    return this.problem.field ?? undefined;
  }
}

/** There is no key, or the key may not ask this. */
export class KeyRefusedError extends RefusedError {}

/** There is no such loop, or no decision under this id. */
export class UnknownError extends RefusedError {}

/** The event id belongs to the decision of another request. */
export class EventIdReusedError extends RefusedError {}

/** The decision under this id was erased. */
export class ErasedError extends RefusedError {}

/** There was no answer in time; `maybeTaken` says whether the service may have taken the request all the same. */
export class UnavailableError extends ClientError {
  constructor(
    reason: string,
    readonly maybeTaken = false,
  ) {
    super(reason);
  }
}

/** The queue of outcomes has no room. */
export class QueueFullError extends ClientError {}

const KINDS: Record<number, new (problem: Problem) => RefusedError> = {
  401: KeyRefusedError,
  403: KeyRefusedError,
  404: UnknownError,
  409: EventIdReusedError,
  410: ErasedError,
};

/** Return the error that a problem document stands for. */
export function refused(problem: Problem): RefusedError {
  return new (KINDS[problem.status] ?? RefusedError)(problem);
}

/** Return the error that the service would answer with, for what can be seen here. */
export function invalid(field: string, wanted: string, got: unknown): RefusedError {
  const detail = `${field}: must be ${wanted}, is ${String(got)}`;
  const type = "urn:decision:problem:invalid-request";
  return refused({ type, title: "Invalid request", status: 422, detail, field, wanted, got: String(got) });
}
