/** An HTTP server for tests whose answers are chosen request by request, right or wrong. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Answer = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

export interface StubService {
  readonly url: string;
  /** `METHOD path?query` of every request so far. */
  readonly requests: string[];
  /** Accepted so far. */
  connections(): number;
  close(): Promise<void>;
}

/** @param answers one for each request in turn; the last goes on answering. */
export async function startStub(...answers: Answer[]): Promise<StubService> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const answer = answers[Math.min(requests.length, answers.length - 1)] as Answer;
    requests.push(`${request.method} ${request.url}`);
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => answer(request, response, Buffer.concat(chunks)));
    request.on("error", () => {});
  });
  let connections = 0;
  server.on("connection", () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    connections: () => connections,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export function json(value: unknown, status = 200): Answer {
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json", "x-amzn-requestid": "req-1" });
    response.end(JSON.stringify(value));
  };
}

export function exception(name: string, status: number, fields: object = {}): Answer {
  return (_request, response) => {
    const body = JSON.stringify({ Message: `it says ${name}`, ...fields });
    response.writeHead(status, {
      "x-amzn-ErrorType": name,
      "x-amzn-requestid": "req-2",
      "content-length": Buffer.byteLength(body),
    });
    response.end(body);
  };
}

export function block(data: Buffer, headers: Record<string, string | undefined> = {}): Answer {
  return (_request, response) => {
    const all = {
      "x-amz-Data-Length": String(data.length),
      "x-amz-Checksum": createHash("sha256").update(data).digest("base64"),
      "x-amz-Checksum-Algorithm": "SHA256",
      ...headers,
    };
    for (const [name, value] of Object.entries(all)) {
      if (value !== undefined) response.setHeader(name, value);
    }
    response.end(data);
  };
}

/** Promises the whole block, sends `bytes` of it, and drops the connection. */
export function cutBlock(data: Buffer, bytes: number): Answer {
  return (_request, response) => {
    response.writeHead(200, {
      "content-length": data.length,
      "x-amz-Checksum": createHash("sha256").update(data).digest("base64"),
    });
    response.write(data.subarray(0, bytes), () => response.destroy());
  };
}

export const reset: Answer = (request) => void request.socket.destroy();
export const hang: Answer = () => {};
