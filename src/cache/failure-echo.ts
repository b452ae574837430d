/**
 * Fetches that readers have just waited for in vain. The kernel repeats a failed readahead as a read of
 * the page that is wanted, and whoever reads would wait for --io-timeout twice; so the repeat is told
 * how the first went. Each waiter is echoed once and for an instant only: whoever asks later, or because
 * the network is back, has the block fetched anew. Other failures come soon enough to be found out again.
 */
import { LRUCache } from "lru-cache";
import { Failure } from "../common/failure.js";

/** The kernel repeats at once; more is for a busy machine where many reads fail together, ms. */
const ECHO_MS = 500;
const ECHOES_KEPT = 256;

export class FailureEcho {
  /** Block's key → what its readers were told, and how many repeats may come. */
  readonly #echoes = new LRUCache<number, { readonly error: Failure; left: number }>({
    max: ECHOES_KEPT,
    ttl: ECHO_MS,
  });

  /** @param waiters how many waited for it until now. */
  add(key: number, error: unknown, waiters: number): void {
    if (waiters === 0 || !(error instanceof Failure) || error.errno !== "ETIMEDOUT") return;
    const left = (this.#echoes.get(key)?.left ?? 0) + waiters;
    this.#echoes.set(key, { error, left });
  }

  /** What a reader who asks now is to be told, if this can be a repeat. */
  take(key: number): Failure | undefined {
    const echo = this.#echoes.get(key);
    if (echo === undefined) return undefined;
    echo.left -= 1;
    if (echo.left === 0) this.#echoes.delete(key);
    return echo.error;
  }
}
