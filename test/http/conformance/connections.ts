/** Connections: kept, limited, given up by the server at any moment, and closed with the transport. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { until } from "../../support/scratch.js";
import { type Exchange, pause, response } from "./hostile-server.js";
import {
  BLOCK,
  bytes,
  Framed,
  failure,
  get,
  request,
  type Scheme,
  type Subject,
} from "./subject.js";

const BUILT = new URL("../../../dist/http/create.js", import.meta.url).pathname;
const CHILD = new URL("./idle-child.mjs", import.meta.url).pathname;

export function connections(subject: Subject): void {
  describe.each<Scheme>(["http", "https"])("connections over %s", (scheme) => {
    test("are kept", async () => {
      const server = await subject.serve(scheme, (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      for (let i = 0; i < 5; i += 1) await get(transport, server.url);
      expect([server.connections, server.requests.length]).toEqual([1, 5]);
    });

    test("are not kept where the server says close", async () => {
      const server = await subject.serve(scheme, (exchange) =>
        exchange.respond("x", "Connection: close"),
      );
      const transport = await subject.transport();
      for (let i = 0; i < 3; i += 1) await get(transport, server.url);
      expect(server.connections).toBe(3);
      await until("no connection is open", () => server.open.size === 0);
    });

    test("two hundred requests share four, and each has its own response", async () => {
      const size = 40_000;
      const server = await subject.serve(scheme, async (exchange) => {
        const seed = Number(exchange.path.slice(1));
        if (seed % 7 === 0) await pause(seed % 5);
        await exchange.respond(bytes(size, seed), `X-Seed: ${seed}`);
      });
      const transport = await subject.transport({ maxConnections: 4 });
      await Promise.all(
        Array.from({ length: 200 }, async (_, seed) => {
          const framed = new Framed(size);
          const rest = { target: framed.target };
          const { headers } = await get(transport, `${server.url}/${seed}`, rest);
          expect(headers["x-seed"]).toBe(String(seed));
          framed.expect(bytes(size, seed));
        }),
      );
      expect(server.requests).toHaveLength(200);
      expect(server.mostOpen).toBeLessThanOrEqual(4);
    });

    const ends: readonly [string, (exchange: Exchange) => unknown][] = [
      ["ends", ({ socket }) => socket.end()],
      ["resets", ({ socket }) => socket.resetAndDestroy()],
    ];
    test.each(ends)("one that the server %s behind a response is replaced", async (_what, end) => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.respond(`${exchange.connection}`);
        end(exchange);
      });
      const transport = await subject.transport();
      for (let i = 0; i < 4; i += 1) {
        const { body } = await get(transport, server.url);
        expect(Buffer.from(body).toString()).toBe(String(i));
        // Alternately at once and when the end has arrived.
        if (i % 2 === 1) await pause(20);
      }
    });

    test.each(ends)(
      "one that the server %s when the next request comes: it is sent once more",
      async (_what, end) => {
        const server = await subject.serve(scheme, async (exchange) => {
          if (exchange.indexOnConnection === 1) end(exchange);
          else await exchange.write(response(201, await exchange.body));
        });
        const transport = await subject.transport();
        await get(transport, server.url);
        const body = bytes(20_000, 1);
        const got = await get(transport, server.url, { method: "PUT", body });
        expect(Buffer.compare(got.body, body)).toBe(0);
        expect(server.requests.map(({ connection }) => connection)).toEqual([0, 0, 1]);
      },
    );

    test("many that the server ends at once are replaced at once", async () => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.respond(exchange.path);
        if (exchange.path === "/last") for (const socket of server.open) socket.end();
      });
      const transport = await subject.transport({ maxConnections: 8 });
      const all = async () => {
        const paths = Array.from({ length: 30 }, (_, i) => `/${i}`);
        const got = await Promise.all(paths.map((path) => get(transport, server.url + path)));
        expect(got.map(({ body }) => Buffer.from(body).toString())).toEqual(paths);
      };
      for (let round = 0; round < 5; round += 1) {
        await all();
        await get(transport, `${server.url}/last`);
      }
    });

    test.each(ends)(
      "no request is sent a third time, or again on a new connection: %s",
      async (_what, end) => {
        const server = await subject.serve(scheme, async (exchange) => {
          if (exchange.index > 0) end(exchange);
          else await exchange.respond("x");
        });
        const transport = await subject.transport();
        await get(transport, server.url);
        const error = await failure(get(transport, server.url), "lost");
        expect(error.message).toContain(`:${server.port}`);
        expect(server.requests).toHaveLength(3);
        await failure(get(transport, server.url), "lost");
        expect(server.requests).toHaveLength(4);
      },
    );

    test("no request is sent again once a line of its response has come", async () => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.write(exchange.index === 0 ? response(200, "x") : "HTTP/1.1 200 OK\r\n");
        if (exchange.index > 0) exchange.socket.end();
      });
      const transport = await subject.transport();
      await get(transport, server.url);
      await failure(get(transport, server.url), "lost", "protocol");
      expect(server.requests).toHaveLength(2);
    });
  });

  describe("the limit of connections", () => {
    test("is one for all hosts, and an idle connection gives way", async () => {
      const held: Exchange[] = [];
      const script = (exchange: Exchange) =>
        exchange.path === "/held" ? held.push(exchange) : exchange.respond("x");
      const servers = [
        await subject.serve("http", script),
        await subject.serve("https", script),
      ] as const;
      const transport = await subject.transport({ maxConnections: 2 });
      const open = () => servers[0].open.size + servers[1].open.size;
      for (let i = 0; i < 6; i += 1) {
        await get(transport, servers[0].url);
        await get(transport, servers[1].url);
        expect(open()).toBeLessThanOrEqual(3);
      }
      await until("two are open", () => open() <= 2);
      const first = [
        get(transport, `${servers[0].url}/held`),
        get(transport, `${servers[0].url}/held`),
      ];
      await until("both are there", () => held.length === 2);
      const waiting = get(transport, servers[1].url);
      await pause(50);
      expect(open()).toBe(2);
      for (const exchange of held) await exchange.respond("now");
      await Promise.all([...first, waiting]);
    });

    test("gives the places of failed requests back", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.path === "/bad" ? exchange.socket.resetAndDestroy() : exchange.respond("x"),
      );
      const transport = await subject.transport({ maxConnections: 2 });
      for (let i = 0; i < 5; i += 1) {
        await failure(get(transport, `${server.url}/bad`), "lost");
        await failure(get(transport, "http://127.0.0.1:1/"), "unreachable");
      }
      await Promise.all([get(transport, server.url), get(transport, server.url)]);
    });
  });

  describe("close", () => {
    test("ends what is under way and what waits, closes all, and can be called again", async () => {
      const server = await subject.serve("https", (exchange) =>
        exchange.path === "/"
          ? exchange.respond("x")
          : exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
      );
      const transport = await subject.transport({ maxConnections: 3 });
      await get(transport, server.url);
      const framed = new Framed(9);
      const all = Array.from({ length: 6 }, () =>
        failure(get(transport, `${server.url}/held`, { target: framed.target }), "closed"),
      );
      await until("three have come", () => server.requests.length === 4);
      await transport.close();
      await Promise.all(all);
      await until("no connection is open", () => server.open.size === 0);
      await transport.close();
      await failure(get(transport, server.url), "closed");
      expect(server.requests).toHaveLength(4);
      framed.expectFrame();
    });

    test("closes idle connections, and a transport that was never used", async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      await Promise.all(Array.from({ length: 5 }, () => get(transport, server.url)));
      await transport.close();
      await until("no connection is open", () => server.open.size === 0);
      await (await subject.transport()).close();
    });

    test("ends a request that is still connecting", async () => {
      const server = await subject.serve("https", () => {}, { accept: () => true });
      const silent = await subject.serve("http", () => {}, {
        accept: (socket) => socket.pause() !== undefined,
      });
      const transport = await subject.transport();
      const url = silent.url.replace("http:", "https:");
      const sending = [
        failure(get(transport, url), "closed"),
        failure(get(transport, server.url), "closed"),
      ];
      await until("it is connected", () => silent.connections === 1);
      await transport.close();
      await Promise.all(sending);
    });
  });

  test("a thousand aborted requests leave no descriptor behind", async () => {
    const server = await subject.serve("http", async (exchange) => {
      const [, kind] = exchange.path.split("/");
      if (kind === "body")
        await exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", bytes(9999, 1));
    });
    const transport = await subject.transport({ maxConnections: 16 });
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const abortOne = async (kind: string) => {
      const controller = new AbortController();
      const sending = transport.send(request(`${server.url}/${kind}`), controller.signal);
      setTimeout(() => controller.abort(), Math.random() * 10);
      await failure(sending, "aborted");
    };
    const round = async (count: number) => {
      const kinds = Array.from({ length: count }, (_, i) => (i % 2 === 0 ? "head" : "body"));
      await Promise.all(kinds.map(abortOne));
      await until("the server's sockets are closed", () => server.open.size === 0);
    };
    await round(50);
    const before = descriptors();
    const memory = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 10; i += 1) await round(100);
    await until("no more descriptors than before", () => descriptors() <= before);
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(64 * 1024 * 1024);
  });

  test.skipIf(!existsSync(BUILT))(
    "an idle transport does not keep the process alive (needs npm run build)",
    async () => {
      const server = await subject.serve("http", (exchange) => exchange.respond(bytes(BLOCK, 1)));
      const environment = { ...process.env, EBSMOUNT_HTTP_TRANSPORT: subject.name };
      const child = spawn(process.execPath, [CHILD, BUILT, server.url], { env: environment });
      let said = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (part: Buffer) => {
          said += part;
        });
      }
      const exited = new Promise((resolve) => child.once("close", resolve));
      const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
      expect([await exited, said]).toEqual([0, `${subject.name} idle\n`]);
      clearTimeout(timer);
      expect(server.connections).toBe(1);
    },
  );
}
