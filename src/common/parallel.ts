/**
 * A bounded number of tasks at a time over a lazy source: each runner takes the next item when it is
 * done with its last, so nothing queues. The first failure stops the rest: the signal that tasks are
 * given is aborted, all runners are awaited, and only then is the failure thrown, so that no task
 * still touches a file or a buffer after the caller has moved on.
 */
import { sharedAbort } from "./shared-abort.js";

/**
 * @param open the items, taken one at a time and in order; given the signal to stop at.
 * @param concurrency tasks at a time, at least 1.
 * @param task is given the signal to stop at.
 * @param signal aborts the whole; its reason is thrown.
 */
export async function runParallel<T>(
  open: (signal: AbortSignal) => AsyncGenerator<T>,
  concurrency: number,
  task: (item: T, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const stop = sharedAbort();
  const forward = () => stop.abort(signal?.reason);
  if (signal?.aborted) forward();
  signal?.addEventListener("abort", forward, { once: true });

  const source = open(stop.signal);
  const run = async () => {
    while (!stop.signal.aborted) {
      const next = await source.next();
      if (next.done || stop.signal.aborted) return;
      await task(next.value, stop.signal);
    }
  };
  // Runners never reject, so Promise.all below waits for every one of them.
  const guarded = () => run().catch((error: unknown) => stop.abort(error));
  try {
    await Promise.all(Array.from({ length: concurrency }, guarded));
    if (stop.signal.aborted) throw stop.signal.reason;
  } finally {
    signal?.removeEventListener("abort", forward);
    await source.return(undefined);
  }
}

/** Waits for all, also after a failure: then none of them holds or writes anything any more. */
export async function allOrFirstError(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === "rejected") throw result.reason;
  }
}
