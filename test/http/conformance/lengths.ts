/** A response is whole or an error: bodies of another length than was said or wanted, cut, or without an end. */
import { describe, expect, test } from "vitest";
import { MAX_ERROR_BODY_BYTES } from "../../../src/http/transport.js";
import { chunked, type Exchange, type Piece, response, type Script } from "./hostile-server.js";
import { bytes, Framed, failure, get, type Scheme, type Subject } from "./subject.js";

const SIZE = 30_000;
const LENGTH_HEAD = `HTTP/1.1 200 OK\r\nContent-Length: ${SIZE}\r\n\r\n`;
const CHUNKED_HEAD = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

type End = "stays" | "ends" | "resets";

function writeThen(end: End, ...pieces: readonly Piece[]): Script {
  return async (exchange: Exchange) => {
    await exchange.write(...pieces);
    if (end === "ends") exchange.socket.end();
    if (end === "resets") exchange.socket.resetAndDestroy();
  };
}

export function lengths(subject: Subject): void {
  const body = bytes(SIZE, 1);

  describe.each<Scheme>(["http", "https"])("lengths over %s", (scheme) => {
    test.each<[string, string, readonly Piece[], End]>([
      ["a shorter length", "body-too-short", [response(200, body.subarray(1))], "stays"],
      ["a longer length", "body-too-long", [response(200, Buffer.concat([body, body]))], "stays"],
      [
        "a longer length, of which nothing comes",
        "body-too-long",
        [LENGTH_HEAD.replace("3", "4")],
        "stays",
      ],
      [
        "shorter chunks",
        "body-too-short",
        [CHUNKED_HEAD, chunked(body.subarray(1), [9000])],
        "stays",
      ],
      [
        "longer chunks",
        "body-too-long",
        [CHUNKED_HEAD, chunked(Buffer.concat([body, body]), [9000])],
        "stays",
      ],
      [
        "endless chunks",
        "body-too-long",
        [CHUNKED_HEAD, "7530\r\n", body, "\r\n7530\r\n", body],
        "stays",
      ],
      [
        "a shorter body until the end",
        "body-too-short",
        ["HTTP/1.0 200 OK\r\n\r\n", body.subarray(1)],
        "ends",
      ],
      [
        "a longer body until the end",
        "body-too-long",
        ["HTTP/1.0 200 OK\r\n\r\n", body, "x"],
        "ends",
      ],
      ["no body", "body-too-short", [response(200)], "stays"],
      ["status 204", "body-too-short", ["HTTP/1.1 204 None\r\n\r\n"], "stays"],
    ])("with a target: %s is %s", async (_what, kind, pieces, end) => {
      const server = await subject.serve(scheme, writeThen(end, ...pieces));
      const framed = new Framed(SIZE);
      const transport = await subject.transport();
      await failure(get(transport, server.url, { target: framed.target }), kind as "body-too-long");
      framed.expectFrame();
    });

    const last = chunked(body, [10_000]);
    test.each<[string, readonly Piece[], End]>([
      ["with a length, ended", [LENGTH_HEAD, body.subarray(0, 20_000)], "ends"],
      [
        "with a length, ended before the last byte",
        [LENGTH_HEAD, body.subarray(0, SIZE - 1)],
        "ends",
      ],
      ["with a length, ended behind the head", [LENGTH_HEAD], "ends"],
      ["in chunks, ended inside one", [CHUNKED_HEAD, last.subarray(0, 15_000)], "ends"],
      ["in chunks, ended between two", [CHUNKED_HEAD, last.subarray(0, 10_008)], "ends"],
      ["in chunks, ended before the last", [CHUNKED_HEAD, last.subarray(0, -5)], "ends"],
      ["in chunks, ended inside the last line", [CHUNKED_HEAD, last.subarray(0, -2)], "ends"],
    ])("cut: %s", async (_what, pieces, end) => {
      const server = await subject.serve(scheme, writeThen(end, ...pieces));
      const transport = await subject.transport();
      const framed = new Framed(SIZE);
      const sending = get(transport, server.url, { target: framed.target });
      const error = await failure(sending, "body-cut-short");
      expect(error.message).toContain(`${server.url.split("/")[2]}`);
      await failure(get(transport, server.url), "body-cut-short");
      framed.expectFrame();
      expect(server.requests).toHaveLength(2);
    });

    test("reset inside the body", async () => {
      const server = await subject.serve(scheme, async (exchange) => {
        await exchange.write(LENGTH_HEAD, body.subarray(0, 20_000));
        exchange.socket.resetAndDestroy();
      });
      const transport = await subject.transport();
      // What had come may be lost with the reset, the head too.
      await failure(get(transport, server.url), "body-cut-short", "lost");
      expect(server.requests).toHaveLength(1);
    });
  });

  describe("lengths that lie", () => {
    const lie = (...headers: readonly string[]) =>
      `HTTP/1.1 200 OK\r\n${headers.map((header) => `${header}\r\n`).join("")}\r\n`;
    const chunks = chunked(Buffer.from("hello"), [5]);
    test.each<[string, readonly Piece[]]>([
      ["two different ones", [lie("Content-Length: 5", "Content-Length: 6"), "hello!"]],
      ["two in one", [lie("Content-Length: 5, 6"), "hello!"]],
      ["a negative one", [lie("Content-Length: -5"), "hello"]],
      ["one that is no number", [lie("Content-Length: five"), "hello"]],
      ["one with a word behind it", [lie("Content-Length: 5 bytes"), "hello"]],
      ["one of 2^64 + 5", [lie("Content-Length: 18446744073709551621"), "hello"]],
      ["one beside chunks", [lie("Content-Length: 5", "Transfer-Encoding: chunked"), chunks]],
      [
        "one before chunks of another length",
        [lie("Content-Length: 99", "Transfer-Encoding: chunked"), chunks],
      ],
      ["a chunk's length that is no number", [CHUNKED_HEAD, "zz\r\nhello\r\n0\r\n\r\n"]],
      ["a negative chunk", [CHUNKED_HEAD, "-5\r\nhello\r\n0\r\n\r\n"]],
      ["a chunk of 2^68 bytes", [CHUNKED_HEAD, "100000000000000000\r\nhello\r\n0\r\n\r\n"]],
      ["a chunk that is longer than it says", [CHUNKED_HEAD, "3\r\nhello\r\n0\r\n\r\n"]],
    ])("%s", async (_what, pieces) => {
      const server = await subject.serve("http", writeThen("ends", ...pieces));
      const transport = await subject.transport();
      const kinds = ["protocol", "body-too-long", "body-cut-short"] as const;
      await failure(get(transport, server.url), ...kinds);
      const framed = new Framed(5);
      await failure(get(transport, server.url, { target: framed.target }), ...kinds);
      framed.expectFrame();
    });

    test("a huge one is refused before anything comes", async () => {
      const huge = lie("Content-Length: 9007199254740000");
      const server = await subject.serve("http", writeThen("stays", huge, "hello"));
      await failure(get(await subject.transport(), server.url), "body-too-long");
    });
  });

  describe("limits", () => {
    test.each(["length", "chunked", "close"])("maxBodyBytes is exact, %s", async (kind) => {
      const server = await subject.serve("http", async (exchange) => {
        const sent = body.subarray(0, Number(exchange.path.slice(1)));
        if (kind === "length") await exchange.respond(sent);
        if (kind === "chunked") await exchange.write(CHUNKED_HEAD, chunked(sent, [7000]));
        if (kind === "close") await exchange.write("HTTP/1.0 200 OK\r\n\r\n", sent);
        if (kind === "close") exchange.socket.end();
      });
      const transport = await subject.transport();
      const options = { maxBodyBytes: 20_000 };
      const { body: whole } = await get(transport, `${server.url}/20000`, options);
      expect(Buffer.compare(whole, body.subarray(0, 20_000))).toBe(0);
      const error = await failure(get(transport, `${server.url}/20001`, options), "body-too-long");
      expect(error.message).toContain("20000");
      expect((await get(transport, `${server.url}/0`, { maxBodyBytes: 0 })).body).toHaveLength(0);
    });

    test("an error's body beside a target has a limit of its own", async () => {
      const error = bytes(MAX_ERROR_BODY_BYTES + 1, 5);
      const server = await subject.serve("http", (exchange) =>
        exchange.write(response(500, error.subarray(Number(exchange.path.slice(1))))),
      );
      const transport = await subject.transport();
      for (const size of [5, 2 * MAX_ERROR_BODY_BYTES]) {
        const framed = new Framed(size);
        const { body: whole } = await get(transport, `${server.url}/1`, { target: framed.target });
        expect(Buffer.compare(whole, error.subarray(1))).toBe(0);
        await failure(
          get(transport, `${server.url}/0`, { target: framed.target }),
          "body-too-long",
        );
        framed.expectFrame();
      }
    });
  });
}
