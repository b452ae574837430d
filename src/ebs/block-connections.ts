/**
 * The kept connections to one origin that blocks go over. The one that was used last is used next,
 * so that those not needed any more are closed by the server in its own time. There are never more
 * than the limit; who comes then waits in line.
 */
import { BlockConnection, type Origin, type RawRequest } from "./block-connection.js";

interface Place {
  readonly request: RawRequest;
  connection: BlockConnection | undefined;
}

export class BlockConnections {
  readonly #origin: Origin;
  readonly #limit: number;
  readonly #all = new Set<BlockConnection>();
  readonly #idle: BlockConnection[] = [];
  readonly #line = new Set<Place>();

  /** @param limit connections at a time. */
  constructor(origin: Origin, limit: number) {
    this.#origin = origin;
    this.#limit = limit;
  }

  /** @returns a function that gives the request up; to be called only before the request's end. */
  send(request: RawRequest): () => void {
    const place: Place = { request, connection: this.#free() };
    if (place.connection === undefined) this.#line.add(place);
    else place.connection.send(request);
    return () => {
      this.#line.delete(place);
      place.connection?.close();
    };
  }

  destroy(): void {
    for (const connection of [...this.#all]) connection.close();
  }

  #free(): BlockConnection | undefined {
    const idle = this.#idle.pop();
    if (idle !== undefined || this.#all.size >= this.#limit) return idle;
    const connection = new BlockConnection(
      this.#origin,
      () => this.#rest(connection),
      () => this.#drop(connection),
    );
    this.#all.add(connection);
    return connection;
  }

  #rest(connection: BlockConnection): void {
    if (this.#line.size === 0) connection.rest();
    this.#idle.push(connection);
    this.#serveLine();
  }

  #drop(connection: BlockConnection): void {
    this.#all.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#serveLine();
  }

  #serveLine(): void {
    for (const place of this.#line) {
      const connection = this.#free();
      if (connection === undefined) return;
      this.#line.delete(place);
      place.connection = connection;
      connection.send(place.request);
    }
  }
}
