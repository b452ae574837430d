/**
 * A server that does what its script says, byte by byte, over TCP or TLS: it reads requests as HTTP/1.1, and
 * writes whatever the script gives it, in pieces that leave one by one. Closed when the test ends.
 */
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from "node:net";
import { createServer as createTls, type TlsOptions } from "node:tls";
import { onTestFinished } from "vitest";

export type Piece = string | Uint8Array;

/** Called when the head of a request has come; its body may not have. */
export type Script = (exchange: Exchange) => unknown;

export interface ServeOptions {
  readonly tls?: TlsOptions;
  readonly host?: string;
  readonly port?: number;
  /** The name in `url`; the address otherwise. */
  readonly name?: string;
  /** Called for each connection before anything is read; true where the script reads and writes itself. */
  readonly accept?: (socket: Socket, index: number) => boolean;
  /** When it listens, before anything is accepted. */
  readonly prepare?: (server: Server) => void;
}

/** One request that a server has got. */
export class Exchange {
  /** Counted from 0: among all, of its connection, and the connection among all. */
  readonly index: number;
  readonly indexOnConnection: number;
  readonly connection: number;
  readonly head: string;
  readonly socket: Socket;
  readonly body: Promise<Buffer>;

  constructor(
    socket: Socket,
    head: string,
    body: Promise<Buffer>,
    indexes: readonly [number, number, number],
  ) {
    this.socket = socket;
    this.head = head;
    this.body = body;
    [this.index, this.indexOnConnection, this.connection] = indexes;
  }

  get method(): string {
    return this.head.split(" ")[0] ?? "";
  }

  get path(): string {
    return this.head.split(" ")[1] ?? "";
  }

  header(name: string): string | undefined {
    const found = new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, "im").exec(this.head);
    return found?.[1];
  }

  /** Writes pieces, each in a turn of its own. */
  async write(...pieces: readonly Piece[]): Promise<void> {
    for (const piece of pieces) {
      if (this.socket.destroyed) return;
      this.socket.write(piece);
      await turn();
    }
  }

  respond(body: Piece, ...headers: readonly string[]): Promise<void> {
    return this.write(response(200, body, ...headers));
  }

  /** Waits until the peer has ended the connection. */
  closed(): Promise<void> {
    const { socket } = this;
    if (socket.destroyed) return Promise.resolve();
    return new Promise((resolve) => socket.once("close", () => resolve()));
  }
}

export interface HostileServer {
  /** `http://127.0.0.1:1234` */
  readonly url: string;
  readonly port: number;
  /** Those that have come, and those that are open. */
  readonly requests: readonly Exchange[];
  readonly connections: number;
  readonly open: ReadonlySet<Socket>;
  /** Most connections that were open at a time. */
  readonly mostOpen: number;
  /** Stops to listen; what is connected stays. */
  stopListening(): void;
}

export async function serve(script: Script, options: ServeOptions = {}): Promise<HostileServer> {
  const requests: Exchange[] = [];
  const open = new Set<Socket>();
  let connections = 0;
  let mostOpen = 0;
  const take = (socket: Socket) => {
    const connection = connections;
    connections += 1;
    open.add(socket);
    mostOpen = Math.max(mostOpen, open.size);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("close", () => open.delete(socket));
    // Half-closed from this side only: the script may end its side and read on.
    socket.on("end", () => socket.end());
    if (options.accept?.(socket, connection) === true) return;
    readRequests(socket, (head, body, indexOnConnection) => {
      const indexes = [requests.length, indexOnConnection, connection] as const;
      const exchange = new Exchange(socket, head, body, indexes);
      requests.push(exchange);
      return script(exchange);
    });
  };
  const server =
    options.tls === undefined
      ? createTcp({ allowHalfOpen: true }, take)
      : createTls({ allowHalfOpen: true, ...options.tls }, take);
  server.on("tlsClientError", () => {});
  const raw = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    raw.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => raw.delete(socket));
  });
  const host = options.host ?? "127.0.0.1";
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, host, resolve);
  });
  options.prepare?.(server);
  let isListening = true;
  const stopListening = () => {
    if (isListening) server.close();
    isListening = false;
  };
  onTestFinished(() => {
    stopListening();
    for (const socket of [...open, ...raw]) socket.destroy();
  });
  const { port } = server.address() as AddressInfo;
  const name = options.name ?? (options.tls === undefined ? host : "localhost");
  const shown = name.includes(":") ? `[${name}]` : name;
  return {
    url: `${options.tls === undefined ? "http" : "https"}://${shown}:${port}`,
    port,
    requests,
    get connections() {
      return connections;
    },
    open,
    get mostOpen() {
      return mostOpen;
    },
    stopListening,
  };
}

/** Reads one request after the other; bodies have a length. */
function readRequests(
  socket: Socket,
  request: (head: string, body: Promise<Buffer>, index: number) => unknown,
): void {
  let bytes = Buffer.alloc(0);
  let index = 0;
  let wanted = 0;
  let finishBody: ((body: Buffer) => void) | undefined;
  socket.on("data", (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    for (;;) {
      if (finishBody !== undefined) {
        if (bytes.length < wanted) return;
        finishBody(bytes.subarray(0, wanted));
        finishBody = undefined;
        bytes = bytes.subarray(wanted);
      }
      const end = bytes.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = bytes.toString("latin1", 0, end + 4);
      bytes = bytes.subarray(end + 4);
      wanted = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
      const body = new Promise<Buffer>((resolve) => {
        finishBody = resolve;
      });
      index += 1;
      Promise.resolve(request(head, body, index - 1)).catch((error: unknown) => {
        if (!socket.destroyed) socket.destroy(error as Error);
      });
    }
  });
}

/** A whole response with the length of its body. */
export function response(status: number, body: Piece = "", ...headers: readonly string[]): Buffer {
  const bytes = Buffer.from(body as string, "latin1");
  const lines = [`HTTP/1.1 ${status} Words`, `Content-Length: ${bytes.length}`, ...headers];
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), bytes]);
}

/** A response's body in chunks of the given sizes; the last size is used again and again. */
export function chunked(body: Uint8Array, sizes: readonly number[], trailer = ""): Buffer {
  const parts: Uint8Array[] = [];
  for (let at = 0, i = 0; at < body.length; i += 1) {
    const size = Math.min(sizes[Math.min(i, sizes.length - 1)] as number, body.length - at);
    parts.push(Buffer.from(`${size.toString(16)}\r\n`), body.subarray(at, at + size));
    parts.push(Buffer.from("\r\n"));
    at += size;
  }
  return Buffer.concat([...parts, Buffer.from(`0\r\n${trailer}\r\n`)]);
}

/** Cuts bytes at the given places. */
export function cutAt(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const sorted = [...new Set(places)].sort((a, b) => a - b);
  const edges = [0, ...sorted.filter((at) => at > 0 && at < bytes.length), bytes.length];
  return edges.slice(1).map((end, index) => bytes.subarray(edges[index], end));
}

/** Lets everything else that is ready happen. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
