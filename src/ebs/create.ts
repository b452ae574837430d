/** The one place where an EbsApi is made, so that callers do not know how requests are carried out. */
import { availableParallelism } from "node:os";
import type { EbsApi } from "./api.js";
import { EbsPool } from "./pool.js";
import { type EbsOptions, SdkEbs } from "./sdk-ebs.js";

export interface CreateOptions extends EbsOptions {
  /**
   * Worker threads for getting and putting blocks; 0 does everything in the calling thread. Unless
   * told, one a processor but the first, at most MOST_THREADS, and one where there are two.
   */
  readonly threads?: number;
}

/**
 * A thread does about 1,000 blocks a second without TLS, the service's default quota, and half of
 * that with it. The mount's own threads, and the programs that read from it, need processors too.
 */
const MOST_THREADS = 4;

/** Makes no request and starts no thread; the operations do. */
export function createEbsApi(options: CreateOptions): EbsApi {
  const { threads = defaultThreads(), ...rest } = options;
  return threads > 0 ? new EbsPool(rest, threads) : new SdkEbs(rest);
}

function defaultThreads(): number {
  const processors = availableParallelism();
  return Math.min(processors - 1, MOST_THREADS);
}
