/**
 * Counts what the endpoint does, a row an operation: what tests and benches compare a client's own
 * account with. Nothing but numbers is kept.
 */
import { OPERATIONS, type Operation } from "./call.js";

export interface OperationStats {
  calls: number;
  /** Answers with a status of 400 or more. */
  errors: number;
  /** Calls that got no whole answer: dropped by a fault or by the client. */
  unanswered: number;
  /** Body bytes received and sent. */
  bytesIn: number;
  bytesOut: number;
  inFlight: number;
  /** Most calls in flight at a time. */
  maxInFlight: number;
}

export type StatsTable = Record<Operation | "total", OperationStats>;

export class Stats {
  #table = emptyTable();

  begin(operation: Operation): void {
    for (const row of [this.#table[operation], this.#table.total]) {
      row.calls += 1;
      row.inFlight += 1;
      row.maxInFlight = Math.max(row.maxInFlight, row.inFlight);
    }
  }

  /** @param status HTTP status of the answer; undefined where none went out whole. */
  end(operation: Operation, status: number | undefined, bytesIn: number, bytesOut: number): void {
    for (const row of [this.#table[operation], this.#table.total]) {
      row.inFlight -= 1;
      if (status === undefined) row.unanswered += 1;
      else if (status >= 400) row.errors += 1;
      row.bytesIn += bytesIn;
      row.bytesOut += bytesOut;
    }
  }

  /** A copy. */
  table(): StatsTable {
    return structuredClone(this.#table);
  }

  /** Starts counting anew; calls in flight stay counted as such. */
  reset(): void {
    const fresh = emptyTable();
    for (const key of Object.keys(fresh) as (keyof StatsTable)[]) {
      const { inFlight } = this.#table[key];
      fresh[key].inFlight = inFlight;
      fresh[key].maxInFlight = inFlight;
    }
    this.#table = fresh;
  }
}

function emptyTable(): StatsTable {
  const row = (): OperationStats => ({
    calls: 0,
    errors: 0,
    unanswered: 0,
    bytesIn: 0,
    bytesOut: 0,
    inFlight: 0,
    maxInFlight: 0,
  });
  const entries = [...OPERATIONS, "total" as const].map((name) => [name, row()]);
  return Object.fromEntries(entries) as StatsTable;
}
