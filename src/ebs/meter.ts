/**
 * Counts what is asked of the service, because every request is billed. The counters are 32-bit
 * words in shared memory, so that worker threads that make the requests count into the same meter
 * as the main thread without a message; readers (status, the fetch queue's back-off) just look.
 */
import { BLOCK_SIZE } from "../common/sizes.js";

export const OPERATIONS = [
  "ListSnapshotBlocks",
  "ListChangedBlocks",
  "GetSnapshotBlock",
  "StartSnapshot",
  "PutSnapshotBlock",
  "CompleteSnapshot",
] as const;

export type Operation = (typeof OPERATIONS)[number];

const FIELDS = ["calls", "requests", "retries", "throttles", "failures", "successes"] as const;
type Field = (typeof FIELDS)[number];

/**
 * Billionths of a USD for one request, us-east-1 list prices: List $0.0006, Get $0.003, Put $0.006 a
 * thousand; start and complete are free. Whole numbers, so that sums of them are exact. Source:
 * https://aws.amazon.com/ebs/pricing/ ("EBS direct APIs for Snapshots").
 */
export const PRICE_NANO_USD: Readonly<Record<Operation, number>> = {
  ListSnapshotBlocks: 600,
  ListChangedBlocks: 600,
  GetSnapshotBlock: 3_000,
  StartSnapshot: 0,
  PutSnapshotBlock: 6_000,
  CompleteSnapshot: 0,
};

/** USD of so many requests of each kind; data transfer not included. */
export function costOf(requests: Readonly<Record<Operation, number>>): number {
  const nano = OPERATIONS.reduce((sum, o) => sum + PRICE_NANO_USD[o] * requests[o], 0);
  return nano / 1e9;
}

/** `$12.58`, `$0.0039`: cents, or as many places as it takes to show two digits of less than one. */
export function formatUsd(usd: number): string {
  if (usd === 0 || usd >= 0.995) return `$${usd.toFixed(2)}`;
  const places = Math.max(2, 1 - Math.floor(Math.log10(usd)));
  return `$${usd.toFixed(Math.min(places, 9))}`;
}

/** calls: operations asked for; requests: attempts sent to the service, which is what is billed. */
export type OperationCounts = Readonly<Record<Field, number>>;

export interface MeterReading {
  readonly operations: Readonly<Record<Operation, OperationCounts>>;
  readonly calls: number;
  readonly requests: number;
  readonly retries: number;
  readonly throttles: number;
  readonly failures: number;
  /** Bytes of verified block data got, and put with success. */
  readonly bytesFetched: number;
  readonly bytesPut: number;
  /** An estimate from list prices; data transfer not included. */
  readonly estimatedCostUsd: number;
}

export class Meter {
  /** Hand this to `new Meter(buffer)` in another thread to count into the same meter. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(OPERATIONS.length * FIELDS.length * 4);
    this.#words = new Int32Array(this.buffer);
  }

  count(operation: Operation, field: Field): void {
    Atomics.add(this.#words, wordOf(operation, field), 1);
  }

  /** Throttled requests of an operation so far; cheap enough to look at for every block. */
  throttles(operation: Operation): number {
    return this.#get(operation, "throttles");
  }

  read(): MeterReading {
    const operations = Object.fromEntries(
      OPERATIONS.map((operation) => [
        operation,
        Object.fromEntries(FIELDS.map((field) => [field, this.#get(operation, field)])),
      ]),
    ) as Record<Operation, OperationCounts>;
    const sum = (field: Field): number =>
      OPERATIONS.reduce((total, operation) => total + operations[operation][field], 0);
    const requests = Object.fromEntries(OPERATIONS.map((o) => [o, operations[o].requests]));
    return {
      operations,
      calls: sum("calls"),
      requests: sum("requests"),
      retries: sum("retries"),
      throttles: sum("throttles"),
      failures: sum("failures"),
      bytesFetched: operations.GetSnapshotBlock.successes * BLOCK_SIZE,
      bytesPut: operations.PutSnapshotBlock.successes * BLOCK_SIZE,
      estimatedCostUsd: costOf(requests as Record<Operation, number>),
    };
  }

  #get(operation: Operation, field: Field): number {
    // Unsigned, so that the count stays true up to four thousand million.
    return Atomics.load(this.#words, wordOf(operation, field)) >>> 0;
  }
}

function wordOf(operation: Operation, field: Field): number {
  return OPERATIONS.indexOf(operation) * FIELDS.length + FIELDS.indexOf(field);
}
