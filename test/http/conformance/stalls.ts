/** A request ends when nothing of it moves for its limit, and only then. */
import type { Server, Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { until } from "../../support/scratch.js";
import { fullListener, setReceiveBuffer } from "./full-listener.js";
import { type Exchange, pause } from "./hostile-server.js";
import {
  BLOCK,
  bytes,
  Framed,
  failure,
  get,
  type Scheme,
  STALL_MS,
  type Subject,
} from "./subject.js";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
const CHUNKED_HEAD = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/** Ends after the limit, and not long after. */
async function endsInTime(sending: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  await sending();
  const took = performance.now() - start;
  expect(took).toBeGreaterThan(STALL_MS * 0.7);
  expect(took).toBeLessThan(STALL_MS * 2 + 1000);
}

export function stalls(subject: Subject): void {
  describe.each<Scheme>(["http", "https"])("stalls over %s", (scheme) => {
    const silences: readonly (readonly [string, (exchange: Exchange) => unknown])[] = [
      ["no response", () => {}],
      ["half a head", (exchange) => exchange.write("HTTP/1.1 200 OK\r\nContent-")],
      ["interim responses", (exchange) => exchange.write("HTTP/1.1 103 Hints\r\n\r\n")],
      ["a head without its body", (exchange) => exchange.write(HEAD)],
      ["half a body", (exchange) => exchange.write(HEAD, bytes(50_000, 1))],
      ["half a chunk", (exchange) => exchange.write(CHUNKED_HEAD, "ff\r\nx")],
    ];
    test(`silence after ${silences.map(([what]) => what).join(", ")}`, async () => {
      const transport = await subject.transport();
      const stallOne = async (script: (exchange: Exchange) => unknown) => {
        const server = await subject.serve(scheme, script);
        const framed = new Framed(100_000);
        await endsInTime(async () => {
          const rest = { stallMs: STALL_MS, target: framed.target };
          const error = await failure(get(transport, server.url, rest), "stalled");
          expect(error.message).toMatch(/0\.6 s/);
        });
        framed.expectFrame();
        await until("its connection is closed", () => server.open.size === 0);
      };
      await Promise.all(silences.map(([, script]) => stallOne(script)));
    });

    test("a put that the server never reads", async () => {
      const server = await subject.serve(scheme, ({ socket }) => socket.pause(), smallWindow);
      const transport = await subject.transport();
      const { seen, progress } = recorder();
      const rest = { method: "PUT", body: bytes(BLOCK, 1), stallMs: STALL_MS, progress } as const;
      await endsInTime(() => failure(get(transport, server.url, rest), "stalled"));
      expectProgress(seen, BLOCK / 2);
    });

    test("a put that the server reads slowly goes on, and tells its progress", async () => {
      const { seen, progress } = recorder();
      const server = await subject.serve(scheme, () => {}, {
        ...smallWindow,
        accept: (socket) => {
          readSlowly(socket, BLOCK, 20_000, 50);
          return true;
        },
      });
      const transport = await subject.transport();
      const start = performance.now();
      const { status } = await get(transport, server.url, {
        method: "PUT",
        body: bytes(BLOCK, 2),
        stallMs: STALL_MS,
        progress,
      });
      const took = performance.now() - start;
      expect(status).toBe(201);
      // Longer than the limit, or it proves nothing.
      expect(took).toBeGreaterThan(1.5 * STALL_MS);
      expect(seen.length).toBeGreaterThan(took / STALL_MS);
      expect(seen.length).toBeLessThan(took / 15);
      expectProgress(seen, BLOCK);
    });

    test("a body that comes slowly goes on", async () => {
      const body = bytes(20_000, 3);
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n");
        for (let at = 0; at < body.length; at += 1000) {
          await pause(60);
          await exchange.write(body.subarray(at, at + 1000));
        }
      });
      const framed = new Framed(body.length);
      const { seen, progress } = recorder();
      const rest = { target: framed.target, stallMs: STALL_MS, progress };
      await get(await subject.transport(), server.url, rest);
      framed.expect(body);
      expectProgress(seen, body.length);
      expect(seen.length).toBeGreaterThan(2);
    });
  });

  describe("stalls", () => {
    test("a stalled request does not tell progress, and gives its place back", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.path === "/" ? exchange.respond("x") : undefined,
      );
      const transport = await subject.transport({ maxConnections: 1 });
      await get(transport, server.url);
      const { seen, progress } = recorder();
      const stalled = failure(
        get(transport, `${server.url}/never`, { stallMs: STALL_MS, progress }),
        "stalled",
      );
      const next = get(transport, server.url, { stallMs: STALL_MS });
      await stalled;
      expectProgress(seen, 0);
      expect((await next).status).toBe(200);
    });

    test("waiting for a place is no stall", async () => {
      const server = await subject.serve("http", async (exchange) => {
        await pause(100);
        await exchange.respond("x");
      });
      const transport = await subject.transport({ maxConnections: 2 });
      const all = Array.from({ length: 24 }, () =>
        get(transport, server.url, { stallMs: STALL_MS }),
      );
      for (const { status } of await Promise.all(all)) expect(status).toBe(200);
    });

    test("a TLS handshake without a response", async () => {
      const server = await subject.serve("http", () => {}, {
        accept: (socket) => socket.resume() !== undefined,
      });
      const transport = await subject.transport();
      await endsInTime(() =>
        failure(
          get(transport, server.url.replace("http:", "https:"), { stallMs: STALL_MS }),
          "stalled",
          "unreachable",
        ),
      );
      await until(
        "its connection is closed",
        () => server.open.size === 0 || server.connections === 1,
      );
    });

    test("a listener that accepts nothing", async () => {
      const port = await fullListener("127.0.0.1");
      const transport = await subject.transport();
      await endsInTime(async () => {
        const sending = get(transport, `http://127.0.0.1:${port}/`, { stallMs: STALL_MS });
        const error = await failure(sending, "unreachable");
        expect(error.message).toContain(`127.0.0.1:${port}`);
      });
    });
  });
}

/** Takes what a request tells of its progress. */
function recorder(): { seen: number[]; progress: (bodyBytes: number) => void } {
  const seen: number[] = [];
  return { seen, progress: (bodyBytes) => seen.push(bodyBytes) };
}

/** It grows, and is never more than the bodies have. */
function expectProgress(seen: readonly number[], most: number): void {
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(seen.at(-1) ?? 0).toBeLessThanOrEqual(most);
}

/** A server whose kernel takes little that the server does not read. */
const smallWindow = {
  prepare: (server: Server) => setReceiveBuffer(descriptorOf(server), 16 * 1024),
};

function descriptorOf(server: Server): number {
  return (server as unknown as { _handle: { fd: number } })._handle.fd;
}

/** Reads a request of `length` bytes in small parts, then responds. */
function readSlowly(socket: Socket, length: number, part: number, everyMs: number): void {
  let left = length;
  let isInBody = false;
  const timer = setInterval(() => {
    const chunk = (socket.read(Math.min(part, socket.readableLength)) ?? "") as Buffer | string;
    let size = chunk.length;
    if (!isInBody && size > 0) {
      const end = Buffer.from(chunk).indexOf("\r\n\r\n");
      isInBody = end >= 0;
      size = isInBody ? size - end - 4 : 0;
    }
    left -= size;
    if (left <= 0) socket.write("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    if (left <= 0 || socket.destroyed) clearInterval(timer);
  }, everyMs);
  socket.on("readable", () => {});
}
