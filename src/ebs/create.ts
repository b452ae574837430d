/** The one place where an EbsApi is made, so that callers do not know how requests are carried out. */
import { availableParallelism } from "node:os";
import { type EbsOptions, SdkEbs } from "./sdk-ebs.js";

/**
 * A thread does some 1,000 blocks a second over TLS, the service's default quota, and more without. Threads
 * beyond the processors' number only take turns with those that read or make the blocks.
 */
const MAX_THREADS = 4;

/** Makes no request and starts no thread; the operations do. */
export function createEbsApi(options: EbsOptions): SdkEbs {
  const { threads = Math.min(availableParallelism(), MAX_THREADS), ...rest } = options;
  return new SdkEbs({ ...rest, threads });
}
