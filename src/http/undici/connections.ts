/**
 * The places for connections that a transport has, to all hosts together. The connection that was used last
 * is used next, so that those not needed any more are closed by the server in its own time. A request that
 * finds every place taken waits in line; an idle connection elsewhere gives its place up.
 */
import type { Connection } from "./connection.js";

/** A place for one connection, which may hold a kept one. */
export interface Place {
  connection: Connection | undefined;
}

interface Waiting {
  readonly key: string;
  take(place: Place): void;
}

export class Connections {
  readonly #max: number;
  /** Kept ones, the one used last at the end. */
  readonly #idle: Connection[] = [];
  readonly #line = new Set<Waiting>();
  #taken = 0;

  /** @param max connections at a time. */
  constructor(max: number) {
    this.#max = max;
  }

  /**
   * @param key of the route; a kept connection in the place has the same.
   * @param signal gives it up; its reason is thrown.
   */
  take(key: string, signal: AbortSignal): Promise<Place> {
    const kept = this.#idle.findLastIndex((connection) => connection.route.key === key);
    const isFree = this.#taken + this.#idle.length < this.#max;
    if (kept < 0 && !isFree && this.#idle.length === 0) return this.#wait(key, signal);
    const connection = kept < 0 ? undefined : this.#idle.splice(kept, 1)[0];
    if (kept < 0 && !isFree) this.#idle.shift()?.destroy();
    this.#taken += 1;
    return Promise.resolve({ connection });
  }

  /** Gives a place back, with its connection where it can be used again. */
  release({ connection }: Place): void {
    this.#taken -= 1;
    const kept = connection?.isUsable ? connection : undefined;
    const [next] = this.#line;
    if (next === undefined) {
      if (kept !== undefined) this.#idle.push(kept);
      return;
    }
    this.#line.delete(next);
    this.#taken += 1;
    if (kept !== undefined && kept.route.key !== next.key) {
      kept.destroy();
      next.take({ connection: undefined });
    } else {
      next.take({ connection: kept });
    }
  }

  /** Takes a connection that has ended away from the kept ones. */
  drop(connection: Connection): void {
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  }

  closeIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  #wait(key: string, signal: AbortSignal): Promise<Place> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#line.delete(waiting);
        reject(signal.reason);
      };
      const waiting: Waiting = {
        key,
        take: (place) => {
          signal.removeEventListener("abort", abort);
          resolve(place);
        },
      };
      this.#line.add(waiting);
      signal.addEventListener("abort", abort, { once: true });
    });
  }
}
