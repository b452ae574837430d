/** Requests with a body: all of it arrives, and responses that do not wait for it count. */
import { describe, expect, test } from "vitest";
import { cutAt, response } from "./hostile-server.js";
import { BLOCK, bytes, failure, get, type Scheme, type Subject } from "./subject.js";

const CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n";

export function uploads(subject: Subject): void {
  describe.each<Scheme>(["http", "https"])("uploads over %s", (scheme) => {
    test("a block arrives byte for byte, from shared memory too", async () => {
      const server = await subject.serve(scheme, async (exchange) => {
        const seed = Number(exchange.path.slice(1));
        const isSame = Buffer.compare(await exchange.body, bytes(BLOCK, seed)) === 0;
        await exchange.write(response(isSame ? 201 : 400));
      });
      const transport = await subject.transport({ maxConnections: 4 });
      const shared = new Uint8Array(new SharedArrayBuffer(BLOCK + 100), 50, BLOCK);
      shared.set(bytes(BLOCK, 100));
      const put = (seed: number, body: Uint8Array) =>
        get(transport, `${server.url}/${seed}`, { method: "PUT", body });
      const all = Array.from({ length: 12 }, (_, seed) => put(seed, bytes(BLOCK, seed)));
      for (const { status } of await Promise.all(all)) expect(status).toBe(201);
      expect((await put(100, shared)).status).toBe(201);
      expect(Buffer.compare(shared, bytes(BLOCK, 100))).toBe(0);
      expect(server.mostOpen).toBeLessThanOrEqual(4);
      for (const { head } of server.requests) {
        expect(head).toMatch(/^PUT /);
        expect(head).toMatch(new RegExp(`^content-length: ${BLOCK}\r$`, "im"));
        expect(head).not.toMatch(/^(?:expect|transfer-encoding|content-type):/im);
      }
    });

    test.each(["PUT", "POST"] as const)("%s with a small body, and with none", async (method) => {
      const server = await subject.serve(scheme, async (exchange) =>
        exchange.respond(await exchange.body),
      );
      const transport = await subject.transport();
      const send = async (body?: Uint8Array) => {
        const rest = body === undefined ? {} : { body };
        return Buffer.from((await get(transport, server.url, { method, ...rest })).body).toString();
      };
      expect(await send(Buffer.from('{"VolumeSize":1}'))).toBe('{"VolumeSize":1}');
      expect(await send(new Uint8Array(0))).toBe("");
      expect(await send()).toBe("");
      expect(server.requests.map((exchange) => exchange.header("content-length"))).toEqual([
        "16",
        "0",
        "0",
      ]);
    });

    test("a length that the caller gives is not sent twice", async () => {
      const server = await subject.serve(scheme, async (exchange) =>
        exchange.respond(await exchange.body),
      );
      const transport = await subject.transport();
      const headers = { "Content-Length": "5", "content-type": "text/plain" };
      await get(transport, server.url, { method: "PUT", headers, body: Buffer.from("hello") });
      expect(server.requests[0]?.head.match(/content-length/gi)).toHaveLength(1);
    });

    test.each([
      ["100", [CONTINUE]],
      ["100, twice", [CONTINUE + CONTINUE]],
      ["103 and 100", ["HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n", CONTINUE]],
      ["100, byte by byte", cutAt(Buffer.from(CONTINUE), [...CONTINUE.split("").keys()])],
    ])("%s before the response is skipped", async (_what, pieces) => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.write(...pieces);
        await exchange.body;
        await exchange.write(response(201, "done"));
      });
      const transport = await subject.transport();
      for (let i = 0; i < 2; i += 1) {
        const got = await get(transport, server.url, { method: "PUT", body: bytes(BLOCK, 1) });
        expect([got.status, Buffer.from(got.body).toString()]).toEqual([201, "done"]);
      }
    });

    describe.each([200, 400])("a response %s before the body is all sent", (status) => {
      const early = response(status, "early");
      test("counts where the server does not read on, and its connection ends", async () => {
        const server = await subject.serve(scheme, async (exchange) => {
          if (exchange.method === "GET") return await exchange.respond("fine");
          exchange.socket.pause();
          await exchange.write(early);
        });
        const transport = await subject.transport({ maxConnections: 1 });
        const body = bytes(16 * BLOCK, 2);
        const got = await get(transport, server.url, { method: "PUT", body });
        expect([got.status, Buffer.from(got.body).toString()]).toEqual([status, "early"]);
        // The rest of the body must not be taken for a request, nor its memory be read.
        body.fill(0);
        const next = await get(transport, server.url);
        expect(Buffer.from(next.body).toString()).toBe("fine");
        expect(server.connections).toBe(2);
      });

      test("counts where the server ends the connection and reads what comes", async () => {
        const server = await subject.serve(scheme, async (exchange) => {
          await exchange.write(early);
          exchange.socket.end();
        });
        const transport = await subject.transport();
        const got = await get(transport, server.url, { method: "PUT", body: bytes(16 * BLOCK, 3) });
        expect([got.status, Buffer.from(got.body).toString()]).toEqual([status, "early"]);
      });

      test("counts, or the connection is lost, where the server resets it", async () => {
        const server = await subject.serve(scheme, async (exchange) => {
          exchange.socket.pause();
          await exchange.write(early);
          exchange.socket.destroy();
        });
        const transport = await subject.transport();
        const sending = get(transport, server.url, { method: "PUT", body: bytes(16 * BLOCK, 4) });
        const got = await sending.catch(() => undefined);
        if (got !== undefined) expect(got.status).toBe(status);
        else await failure(sending, "lost", "body-cut-short");
        expect(server.requests).toHaveLength(1);
      });
    });
  });
}
