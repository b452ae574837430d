/**
 * Tells when a request is over: when its response is closed, or its connection. Of the latter Node
 * does not tell responses that wait in line behind another one on the same connection (pipelining),
 * so each connection keeps a set of what is open on it.
 */
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

export class LeftRequests {
  readonly #bySocket = new WeakMap<Socket, Set<() => void>>();

  whenOver(socket: Socket, response: ServerResponse, tell: () => void): void {
    let open = this.#bySocket.get(socket);
    if (open === undefined) {
      const waiting = new Set<() => void>();
      open = waiting;
      this.#bySocket.set(socket, open);
      socket.once("close", () => {
        for (const end of [...waiting]) end();
      });
    }
    const waiting = open;
    const end = () => {
      if (waiting.delete(end)) tell();
    };
    waiting.add(end);
    response.once("close", end);
  }
}
