/** The one place where an EbsApi is made, so that callers do not know how requests are carried out. */
import { availableParallelism } from "node:os";
import { type EbsOptions, SdkEbs } from "./sdk-ebs.js";

/**
 * A thread does some 1,000 blocks a second over TLS, the service's default quota, and more without. Threads
 * beyond the processors' number only take turns with those that read or make the blocks.
 */
const MAX_THREADS = 4;

/**
 * Block threads beside `others` that are as busy. A mount has one, which serves the kernel: with a block thread for
 * each of two processors beside it, a block took 5 to 12 % more processor time, and the process 12 to 16 MiB more.
 */
export function threadsBeside(others: number): number {
  return Math.min(Math.max(1, availableParallelism() - others), MAX_THREADS);
}

/** Makes no request and starts no thread; the operations do. */
export function createEbsApi(options: EbsOptions): SdkEbs {
  const { threads = threadsBeside(0), ...rest } = options;
  return new SdkEbs({ ...rest, threads });
}
