/** Heads of responses: too long, no HTTP at all, interim ones, and bytes that belong to no response. */
import { describe, expect, test } from "vitest";
import { MAX_HEAD_BYTES } from "../../../src/http/transport.js";
import { type Exchange, pause, response } from "./hostile-server.js";
import { failure, get, type Scheme, type Subject } from "./subject.js";

async function endless(exchange: Exchange, start: string, piece: string): Promise<void> {
  await exchange.write(start);
  for (let i = 0; i < 5000 && !exchange.socket.destroyed; i += 1) await exchange.write(piece);
}

export function heads(subject: Subject): void {
  describe("long heads", () => {
    const line = (bytes: number) => `X-Long: ${"x".repeat(bytes - 10)}\r\n`;
    const many = (bytes: number) => "a: b\r\n".repeat(bytes / 6);
    test.each([
      ["one header", line],
      ["many headers", many],
    ])("48 KiB in %s are read, 80 KiB are too long", async (_what, make) => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write(
          `HTTP/1.1 200 OK\r\nX-First: 1\r\n${make(Number(exchange.path.slice(1)))}`,
          "X-Last: 2\r\nContent-Length: 2\r\n\r\nok",
        ),
      );
      const transport = await subject.transport();
      const { headers, body } = await get(transport, `${server.url}/49152`);
      expect([headers["x-first"], headers["x-last"]]).toEqual(["1", "2"]);
      expect(Buffer.from(body).toString()).toBe("ok");
      expect(MAX_HEAD_BYTES).toBe(64 * 1024);
      await failure(get(transport, `${server.url}/81918`), "head-too-long");
    });

    test("1 MiB", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write(`HTTP/1.1 200 OK\r\n${line(1024 * 1024)}Content-Length: 0\r\n\r\n`),
      );
      await failure(get(await subject.transport(), server.url), "head-too-long");
    });

    test.each([
      ["headers", "HTTP/1.1 200 OK\r\n", "X-More: and more and more\r\n".repeat(50)],
      ["a header's value", "HTTP/1.1 200 OK\r\nX-More: ", "and more ".repeat(200)],
      ["a header's name", "HTTP/1.1 200 OK\r\nX-", "more-and-".repeat(200)],
      ["a status line", "HTTP/1.1 200 O", "K".repeat(2000)],
      ["interim responses", "", "HTTP/1.1 102 Wait\r\nX-More: yes\r\n\r\n".repeat(50)],
    ])("endless: %s", async (_what, start, piece) => {
      const server = await subject.serve("http", (exchange) => endless(exchange, start, piece));
      await failure(get(await subject.transport(), server.url), "head-too-long", "protocol");
      expect(server.requests).toHaveLength(1);
    });
  });

  describe("no HTTP", () => {
    test.each([
      ["a banner", "SSH-2.0-OpenSSH_9.2\r\n"],
      ["HTML", "<html>hello</html>"],
      ["a bare body", "hello\r\n\r\n"],
      ["another version", "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n"],
      ["no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"],
      ["zeros", "\0".repeat(100)],
    ])("%s is an error", async (_what, text) => {
      const server = await subject.serve("http", async (exchange) => {
        await exchange.write(text);
        exchange.socket.end();
      });
      await failure(get(await subject.transport(), server.url), "protocol");
    });

    test("nothing at all is a lost connection", async () => {
      const server = await subject.serve("http", (exchange) => exchange.socket.end());
      const transport = await subject.transport();
      await failure(get(transport, server.url), "lost");
      expect(server.requests).toHaveLength(1);
    });

    test("half a head is a lost connection", async () => {
      const server = await subject.serve("http", async (exchange) => {
        await exchange.write("HTTP/1.1 200 OK\r\nContent-Le");
        exchange.socket.end();
      });
      await failure(get(await subject.transport(), server.url), "lost", "protocol");
    });
  });

  describe("interim responses", () => {
    const interim =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </x>\r\nX-Name: no\r\n\r\n";
    test("are skipped, and their headers with them", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write(interim, response(200, "done", "X-Name: yes")),
      );
      const transport = await subject.transport();
      for (let i = 0; i < 3; i += 1) {
        const { status, headers, body } = await get(transport, server.url);
        expect([status, Buffer.from(body).toString()]).toEqual([200, "done"]);
        expect(headers).toMatchObject({ "x-name": "yes" });
        expect(headers.link).toBeUndefined();
      }
      expect(server.connections).toBe(1);
    });

    test("a change of protocol that was not asked for is an error", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello"),
      );
      await failure(get(await subject.transport(), server.url), "protocol");
    });
  });

  describe.each<Scheme>(["http", "https"])("bytes behind a response, over %s", (scheme) => {
    const evil = response(200, "EVIL", "X-Evil: yes");
    test.each([
      ["in the same piece", 0],
      ["a little later", 30],
    ])("%s are never the next response", async (_what, delay) => {
      const server = await subject.serve(scheme, async (exchange) => {
        const good = response(200, "good");
        if (delay === 0) return await exchange.write(Buffer.concat([good, evil]));
        await exchange.write(good);
        await pause(delay);
        await exchange.write(evil);
      });
      const transport = await subject.transport({ maxConnections: 1 });
      for (let i = 0; i < 3; i += 1) {
        const { headers, body } = await get(transport, server.url);
        expect([headers["x-evil"], Buffer.from(body).toString()]).toEqual([undefined, "good"]);
        await pause(2 * delay);
      }
      expect(server.connections).toBe(3);
    });
  });
}
