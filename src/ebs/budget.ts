/**
 * What the user allows to be spent: a number of requests, a number of dollars, or both. Every request is
 * taken from it before it is sent, retries included, because each is billed; one that it does not
 * cover is not sent. That fails only once all others that are under way have ended: a failure makes
 * callers abort the others, and what is paid for must not be thrown away.
 *
 * What was taken stands in shared memory, so that threads can take from one budget without a message.
 * It holds for one process: a mount from its start to the end of its commit, or one run of a command.
 */
import { Failure } from "../common/failure.js";
import { formatUsd, type Operation, PRICE_NANO_USD } from "./meter.js";

export interface BudgetLimits {
  readonly maxRequests?: number;
  readonly maxCostUsd?: number;
}

const REQUESTS = 0;
const NANO_USD = 1;

export class Budget {
  readonly limits: BudgetLimits;
  readonly #taken: BigInt64Array;
  readonly #maxRequests: bigint | undefined;
  readonly #maxNanoUsd: bigint | undefined;
  #underWay = 0;
  #waiting: (() => void)[] = [];

  /** @param buffer of the budget in another thread, to take from the same. */
  constructor(limits: BudgetLimits = {}, buffer = new SharedArrayBuffer(16)) {
    const { maxRequests, maxCostUsd } = limits;
    this.limits = limits;
    this.#taken = new BigInt64Array(buffer);
    this.#maxRequests = maxRequests === undefined ? undefined : BigInt(maxRequests);
    this.#maxNanoUsd = maxCostUsd === undefined ? undefined : BigInt(Math.round(maxCostUsd * 1e9));
  }

  /**
   * Sends a request that the budget covers.
   * @param signal ends the wait for the others.
   * @throws Failure EDQUOT where it does not; what `send` throws
   */
  async spend<T>(
    operation: Operation,
    signal: AbortSignal | undefined,
    send: () => Promise<T>,
  ): Promise<T> {
    const reached = this.#take(operation);
    if (reached !== undefined) {
      await this.#othersEnded(signal);
      throw new Failure("EDQUOT", reached);
    }
    this.#underWay += 1;
    try {
      return await send();
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) for (const wake of this.#waiting.splice(0)) wake();
    }
  }

  /** @returns why it cannot be taken, as a sentence. */
  #take(operation: Operation): string | undefined {
    const price = BigInt(PRICE_NANO_USD[operation]);
    const requests = Atomics.add(this.#taken, REQUESTS, 1n) + 1n;
    const nanoUsd = Atomics.add(this.#taken, NANO_USD, price) + price;
    const limit = this.#reached(requests, nanoUsd);
    if (limit === undefined) return undefined;
    Atomics.sub(this.#taken, REQUESTS, 1n);
    Atomics.sub(this.#taken, NANO_USD, price);
    const spent = formatUsd(Number(nanoUsd - price) / 1e9);
    return `${limit} is reached (${requests - 1n} requests so far, about ${spent}). The next command or mount counts from zero.`;
  }

  #reached(requests: bigint, nanoUsd: bigint): string | undefined {
    if (this.#maxRequests !== undefined && requests > this.#maxRequests) {
      return `--max-requests ${this.#maxRequests}`;
    }
    // What is free always fits: nothing beyond the limit has been taken.
    if (this.#maxNanoUsd !== undefined && nanoUsd > this.#maxNanoUsd) {
      return `--max-cost ${formatUsd(this.limits.maxCostUsd as number)}`;
    }
    return undefined;
  }

  async #othersEnded(signal: AbortSignal | undefined): Promise<void> {
    if (this.#underWay === 0 || signal?.aborted) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
    });
  }
}
