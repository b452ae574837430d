/**
 * An abort signal that many operations listen to at a time. Node takes more than ten listeners for a
 * leak and warns on the user's screen; here their number is the concurrency, which has its own limit.
 */
import { setMaxListeners } from "node:events";

export function sharedAbort(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}
