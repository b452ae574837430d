/**
 * A server of another make, less strict than the service: block indexes as strings and in the order of
 * writing, a wrong BlockSize, no paging whatever is asked for, no NextToken, no expiry, checksums given
 * back as they came, client tokens and parents ignored. Its quirk, where one is set, is a real fault.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Quirk =
  | ""
  | "no checksum"
  | "another block"
  | "short"
  | "twice"
  | "other parent"
  | "starts completed"
  | "null list"
  | "same token"
  | "tokens in a circle"
  | "new tokens";

interface Block {
  readonly data: Buffer;
  readonly checksum: string;
}

interface Snapshot {
  readonly size: number;
  readonly blocks: Map<string, Block>;
}

export class LenientServer {
  quirk: Quirk = "";
  /** Requests so far. */
  readonly counts = { lists: 0, puts: 0 };
  readonly #snapshots = new Map<string, Snapshot>();
  readonly #server = createServer((request, response) => {
    this.#answer(request, response).catch(() => response.destroy());
  });

  static async start(): Promise<LenientServer> {
    const server = new LenientServer();
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): Promise<unknown> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const path = new URL(request.url ?? "", "http://x").pathname.split("/").slice(2);
    const [id = "", kind, index] = path;
    const snapshot = this.#snapshots.get(id);
    if (request.method === "POST" && id === "") {
      const made = `snap-${(this.#snapshots.size + 0xabc).toString(16)}`;
      const { VolumeSize } = JSON.parse(body.toString()) as { VolumeSize: number };
      this.#snapshots.set(made, { size: VolumeSize, blocks: new Map() });
      const parent = this.quirk === "other parent" ? { ParentSnapshotId: "snap-0bad" } : {};
      json(response, {
        SnapshotId: made,
        Status: this.quirk === "starts completed" ? "completed" : "pending",
        VolumeSize,
        BlockSize: 512,
        ...parent,
      });
    } else if (request.method === "POST") {
      json(response, { Status: "completed" });
    } else if (snapshot === undefined) {
      response.writeHead(404, { "x-amzn-ErrorType": "ResourceNotFoundException" }).end("{}");
    } else if (request.method === "PUT" && index !== undefined) {
      this.counts.puts += 1;
      const checksum = String(request.headers["x-amz-checksum"]);
      snapshot.blocks.set(index, { data: body, checksum });
      response.writeHead(201, { "x-amz-Checksum": checksum, "X-Something-Else": "yes" }).end();
    } else if (kind === "blocks" && index !== undefined) {
      this.#give(response, snapshot, index);
    } else {
      this.#list(response, snapshot);
    }
  }

  #give(response: ServerResponse, { blocks }: Snapshot, index: string): void {
    const { data, checksum } = blocks.get(index) ?? { data: Buffer.alloc(0), checksum: "" };
    response.writeHead(200, {
      "x-amz-Data-Length": String(data.length),
      ...(this.quirk !== "no checksum" && { "x-amz-Checksum": checksum }),
      "x-amz-Checksum-Algorithm": "SHA256",
    });
    const other = this.quirk === "another block" ? [...blocks.values()][0]?.data : data;
    response.end(this.quirk === "short" ? data.subarray(0, 1000) : other);
  }

  #list(response: ServerResponse, { size, blocks }: Snapshot): void {
    const list = [...blocks.keys()].map((BlockIndex) => ({
      BlockIndex,
      BlockToken: `0e3c7a52-${BlockIndex}-b1f0`,
    }));
    if (this.quirk === "twice") list.push(...list.slice(0, 1));
    this.counts.lists += 1;
    const token = this.#nextToken();
    json(response, {
      Blocks: this.quirk === "null list" ? null : token === undefined ? list : [],
      VolumeSize: String(size),
      BlockSize: 512,
      ...(token !== undefined && { NextToken: token }),
    });
  }

  /** Of a list that leads nowhere. */
  #nextToken(): string | undefined {
    if (this.quirk === "same token") return "again";
    if (this.quirk === "tokens in a circle") return `round${this.counts.lists % 3}`;
    return this.quirk === "new tokens" ? `new${this.counts.lists}` : undefined;
  }
}

function json(response: ServerResponse, answer: object): void {
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
}
