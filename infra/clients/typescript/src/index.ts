/** Client of the decision service: which action for this context? */

export { Client } from "./client.js";
export {
  ClientError,
  ErasedError,
  EventIdReusedError,
  KeyRefusedError,
  QueueFullError,
  RefusedError,
  UnavailableError,
  UnknownError,
} from "./errors.js";
export type { Reported } from "./outcomes.js";
export type { Refusal } from "./queue.js";
export type { Counts, Loss, Settings } from "./settings.js";
export { type Store, WebStore, type WebStorage } from "./store.js";
export * from "./wire.js";
