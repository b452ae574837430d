/** Bodies of every shape that HTTP allows arrive whole, and nothing around their target changes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { chunked, cutAt, type Exchange, type Piece, response } from "./hostile-server.js";
import { BLOCK, bytes, Framed, get, type Scheme, type Subject } from "./subject.js";

export function bodies(subject: Subject): void {
  const numberOf = ({ path }: Exchange) => Number(path.slice(1));

  describe.each<Scheme>(["http", "https"])("bodies over %s", (scheme) => {
    test("blocks arrive byte for byte, the first on each connection too", async () => {
      const server = await subject.serve(scheme, (exchange) =>
        exchange.respond(bytes(BLOCK, numberOf(exchange))),
      );
      const transport = await subject.transport({ maxConnections: 6 });
      for (let round = 0; round < 3; round += 1) {
        await Promise.all(
          Array.from({ length: 6 }, async (_, index) => {
            const seed = round * 6 + index;
            const framed = new Framed(BLOCK);
            const { status, body } = await get(transport, `${server.url}/${seed}`, {
              target: framed.target,
            });
            expect([status, body.length]).toEqual([200, 0]);
            framed.expect(bytes(BLOCK, seed));
          }),
        );
      }
      expect(server.connections).toBeLessThanOrEqual(6);
    });

    test("a block of zeros and one that ends with zeros", async () => {
      const blocks = [Buffer.alloc(BLOCK), Buffer.concat([bytes(BLOCK - 10, 1), Buffer.alloc(10)])];
      const server = await subject.serve(scheme, (exchange) =>
        exchange.respond(blocks[exchange.index] as Buffer),
      );
      const transport = await subject.transport();
      for (const block of blocks) {
        const framed = new Framed(BLOCK);
        await get(transport, server.url, { target: framed.target });
        framed.expect(block);
      }
    });

    test("chunks of odd sizes, with extensions and a trailer", async () => {
      const block = bytes(BLOCK, 2);
      const sizes = [1, 2, 65_535, 3, 131_072, 17, 99_999];
      const body = chunked(block, sizes, "X-Trailer: yes\r\n");
      const withExtension = Buffer.concat([
        Buffer.from("2;a=b;c\r\n"),
        block.subarray(0, 2),
        Buffer.from("\r\n"),
      ]);
      const server = await subject.serve(scheme, (exchange) =>
        exchange.write(
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
          exchange.path === "/" ? body : withExtension,
          exchange.path === "/" ? "" : chunked(block.subarray(2), [200_000]),
        ),
      );
      const transport = await subject.transport();
      for (const path of ["/", "/extension", "/"]) {
        const framed = new Framed(BLOCK);
        await get(transport, server.url + path, { target: framed.target });
        framed.expect(block);
      }
      const { body: collected } = await get(transport, server.url);
      expect(Buffer.compare(collected, block)).toBe(0);
      expect(server.connections).toBe(1);
    });

    const small = bytes(23, 3);
    const heads: readonly [string, Buffer][] = [
      ["with a length", response(200, small, "X-Name: value")],
      [
        "in chunks",
        Buffer.concat([
          Buffer.from("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Name: value\r\n\r\n"),
          chunked(small, [10, 12], "x-trailer: yes\r\n"),
        ]),
      ],
      [
        "after interim responses",
        Buffer.concat([
          Buffer.from("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nx: y\r\n\r\n"),
          response(200, small, "X-Name: value"),
        ]),
      ],
    ];
    test.each(heads)("split at every byte, %s", async (_what, whole) => {
      const server = await subject.serve(scheme, async (exchange) => {
        const at = numberOf(exchange);
        await exchange.write(...cutAt(whole, at === 0 ? [...whole.keys()] : [at]));
      });
      const transport = await subject.transport();
      for (let at = 0; at < whole.length; at += 1) {
        const framed = new Framed(small.length);
        const { headers } = await get(transport, `${server.url}/${at}`, { target: framed.target });
        framed.expect(small);
        expect(headers["x-name"]).toBe("value");
      }
      expect(server.connections).toBe(1);
    });

    test("split at random places, with a length, in chunks, and until the end", async () => {
      let pieces: Uint8Array[] = [];
      let isLast = false;
      const server = await subject.serve(scheme, async (exchange) => {
        const ends = isLast;
        await exchange.write(...pieces);
        if (ends) exchange.socket.end();
      });
      const transport = await subject.transport();
      const shape = fc.constantFrom("length", "chunked", "close");
      const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });
      const sizes = fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(
          shape,
          fc.nat(100_000),
          fc.nat(),
          cuts,
          sizes,
          fc.boolean(),
          async (kind, length, seed, places, chunks, hasTarget) => {
            const body = bytes(length, seed);
            const head = {
              length: `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`,
              chunked: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
              close: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            }[kind];
            const sent = kind === "chunked" ? chunked(body, chunks) : body;
            const whole = Buffer.concat([Buffer.from(head), sent]);
            pieces = cutAt(
              whole,
              places.map((place) => Math.floor(place * whole.length)),
            );
            isLast = kind === "close";
            const framed = new Framed(length);
            const got = await get(
              transport,
              server.url,
              hasTarget ? { target: framed.target } : {},
            );
            if (hasTarget) framed.expect(body);
            else expect(Buffer.compare(got.body, body)).toBe(0);
          },
        ),
        { numRuns: 40 },
      );
    });

    test.each<[string, Piece[]]>([
      ["HTTP/1.1 until the end", ["HTTP/1.1 200 OK\r\n\r\n", bytes(70_000, 4)]],
      ["HTTP/1.0 until the end", ["HTTP/1.0 200 OK\r\n\r\n", bytes(70_000, 4)]],
      [
        "HTTP/1.0 with a length",
        ["HTTP/1.0 200 OK\r\nContent-Length: 70000\r\n\r\n", bytes(70_000, 4)],
      ],
    ])("%s", async (_what, pieces) => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.write(...pieces);
        exchange.socket.end();
      });
      const transport = await subject.transport();
      const framed = new Framed(70_000);
      await get(transport, server.url, { target: framed.target });
      framed.expect(bytes(70_000, 4));
      const { body } = await get(transport, server.url);
      expect(Buffer.compare(body, bytes(70_000, 4))).toBe(0);
      expect(server.connections).toBe(2);
    });
  });

  describe("responses", () => {
    test.each([
      ["200 without a body", "GET", response(200), 200],
      ["204", "GET", Buffer.from("HTTP/1.1 204 No Content\r\n\r\n"), 204],
      [
        "304 with a length",
        "GET",
        Buffer.from("HTTP/1.1 304 Same\r\nContent-Length: 99\r\n\r\n"),
        304,
      ],
      [
        "HEAD with a length",
        "HEAD",
        Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        200,
      ],
      ["DELETE", "DELETE", response(202), 202],
    ] as const)("%s has no body and needs none", async (_what, method, whole, expected) => {
      const server = await subject.serve("http", (exchange) => exchange.write(whole));
      const transport = await subject.transport();
      for (let i = 0; i < 2; i += 1) {
        const { status, body } = await get(transport, server.url, { method, stallMs: 2000 });
        expect([status, body.length]).toEqual([expected, 0]);
      }
      expect(server.requests[0]?.method).toBe(method);
    });

    test("any 2xx fills the target, every other status has its own body", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write(response(numberOf(exchange), "0123456789")),
      );
      const transport = await subject.transport();
      for (const status of [200, 201, 203, 206, 299]) {
        const framed = new Framed(10);
        const got = await get(transport, `${server.url}/${status}`, { target: framed.target });
        expect([got.status, got.body.length]).toEqual([status, 0]);
        framed.expect(Buffer.from("0123456789"));
      }
      for (const status of [300, 302, 400, 403, 404, 429, 500, 503]) {
        const framed = new Framed(99);
        const got = await get(transport, `${server.url}/${status}`, { target: framed.target });
        expect([got.status, Buffer.from(got.body).toString()]).toEqual([status, "0123456789"]);
        framed.expectFrame();
      }
    });

    test("header names are in lower case, those that come twice are joined, values are Latin-1", async () => {
      const server = await subject.serve("http", (exchange) =>
        exchange.write(
          "HTTP/1.1 200 Gr\xfcn\r\nX-Amz-Checksum:abc=\r\nX-Twice: one\r\nx-twice:  two  \r\n",
          Buffer.from(
            "X-Latin: caf\xe9\r\nX-Empty:\r\n__proto__: x\r\nconstructor: y\r\n",
            "latin1",
          ),
          "Content-Length: 0\r\n\r\n",
        ),
      );
      const { headers } = await get(await subject.transport(), server.url);
      expect(headers).toMatchObject({
        "x-amz-checksum": "abc=",
        "x-twice": "one, two",
        "x-latin": "caf\xe9",
        "x-empty": "",
        "content-length": "0",
      });
      expect(headers.constructor).toBe("y");
      expect(({} as Record<string, unknown>).x).toBeUndefined();
    });
  });
}
