/** The service as a command's options name it, with a meter and a log. Loads the AWS SDK. */
import { type Logger, openLog } from "../common/log.js";
import type { EbsApi } from "../ebs/api.js";
import { Budget } from "../ebs/budget.js";
import { createEbsApi, threadsBeside } from "../ebs/create.js";
import { Meter } from "../ebs/meter.js";
import type { ServiceOptions } from "./options.js";

export interface Service {
  /** Close it when done. */
  readonly api: EbsApi;
  readonly meter: Meter;
  readonly budget: Budget;
  readonly log: Logger;
}

/**
 * Makes no request.
 * @param log to standard error unless told otherwise.
 * @param busyThreads of this process, beside those for blocks.
 */
export async function openService(
  options: ServiceOptions,
  log: Logger = openLog(options.logLevel),
  busyThreads = 0,
): Promise<Service> {
  const meter = new Meter();
  const budget = new Budget({
    ...(options.maxRequests !== undefined && { maxRequests: options.maxRequests }),
    ...(options.maxCost !== undefined && { maxCostUsd: options.maxCost }),
  });
  const api = createEbsApi({
    ...(options.region !== undefined && { region: options.region }),
    ...(options.profile !== undefined && { profile: options.profile }),
    ...(options.endpointUrl !== undefined && { endpointUrl: options.endpointUrl }),
    ...(options.isProven !== undefined && { proven: options.isProven }),
    ...(options.bandwidthLimit !== undefined && { bytesPerSecond: options.bandwidthLimit }),
    ...(options.maxRequestsPerSecond !== undefined && {
      requestsPerSecond: options.maxRequestsPerSecond,
    }),
    threads: threadsBeside(busyThreads),
    concurrency: options.concurrency,
    ioTimeoutMs: options.ioTimeout,
    meter,
    budget,
    log: (level, message) => log[level](message),
  });
  return { api, meter, budget, log };
}
