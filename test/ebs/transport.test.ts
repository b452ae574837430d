/** Blocks over the wire in every shape that HTTP allows, over TCP and TLS. */
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer as createTcp, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTls } from "node:tls";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { BlockConnection } from "../../src/ebs/block-connection.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { NotPlain, readChunkedBody, readResponseHead } from "../../src/ebs/response-head.js";

process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const DATA = randomBytes(BLOCK_SIZE);
const SUM = createHash("sha256").update(DATA).digest("base64");
const HEAD = `HTTP/1.1 200 OK\r\nContent-Length: ${BLOCK_SIZE}\r\nx-amz-Checksum: ${SUM}\r\n`;

/** A server that answers each request with the pieces that `answer` gives, then maybe closes. */
async function serve(
  answer: (request: number) => { readonly pieces: Buffer[]; readonly close?: boolean },
  secure?: { key: Buffer; cert: Buffer },
): Promise<{ api: EbsApi; connections: () => number }> {
  let requests = 0;
  let connections = 0;
  const sockets = new Set<Socket>();
  const onConnection = (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {});
    let text = "";
    socket.on("data", async (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (!text.endsWith("\r\n\r\n")) return;
      text = "";
      requests += 1;
      const { pieces, close } = answer(requests);
      for (const piece of pieces) {
        socket.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (close) socket.end();
    });
  };
  const server: Server = secure ? createTls(secure, onConnection) : createTcp(onConnection);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const api = createEbsApi({
    endpointUrl: `${secure ? "https" : "http"}://127.0.0.1:${port}`,
    region: "us-east-1",
    threads: 0,
  });
  closers.push(
    () => api.close(),
    () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    },
  );
  return { api, connections: () => connections };
}

async function get(api: EbsApi): Promise<void> {
  const target = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE + 2 * 4096), 4096, BLOCK_SIZE);
  const frame = new Uint8Array(target.buffer);
  await api.getSnapshotBlock("snap-1", 5, "AAAA", target);
  expect(Buffer.compare(Buffer.from(target), DATA)).toBe(0);
  // Nothing next to the block was touched.
  expect(frame.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
  expect(frame.subarray(-4096).every((byte) => byte === 0)).toBe(true);
}

function split(whole: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((cut) => cut % whole.length).sort((a, b) => a - b), whole.length];
  return places.slice(1).map((end, i) => whole.subarray(places[i], end));
}

test("an answer cut into any pieces is put together, over kept connections", async () => {
  let pieces: Buffer[] = [];
  const { api, connections } = await serve(() => ({ pieces }));
  const whole = Buffer.concat([Buffer.from(`${HEAD}\r\n`), DATA]);
  const nearHead = fc.nat(200);
  const anywhere = fc.nat(whole.length - 1);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(nearHead, anywhere), { maxLength: 8 }), async (cuts) => {
      pieces = split(whole, cuts);
      await get(api);
    }),
    { numRuns: 60 },
  );
  expect(connections()).toBe(1);
});

test("a server that closes after each answer is connected to anew", async () => {
  const whole = Buffer.concat([Buffer.from(`${HEAD}Connection: close\r\n\r\n`), DATA]);
  const { api, connections } = await serve(() => ({ pieces: [whole], close: true }));
  for (let i = 0; i < 3; i += 1) await get(api);
  expect(connections()).toBe(3);
});

test("chunked bodies, interim answers and HTTP/1.0 are understood too", async () => {
  const plain = `x-amz-Checksum: ${SUM}\r\n\r\n`;
  const chunk = [Buffer.from(`${BLOCK_SIZE.toString(16)}\r\n`), DATA, Buffer.from("\r\n0\r\n\r\n")];
  const answers = [
    [Buffer.from(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n${plain}`), ...chunk],
    [Buffer.from("HTTP/1.1 100 Continue\r\n\r\n"), Buffer.from(`${HEAD}\r\n`), DATA],
    [Buffer.from(`HTTP/1.0 200 OK\r\nContent-Length: ${BLOCK_SIZE}\r\n${plain}`), DATA],
    [Buffer.from(`HTTP/1.1 200 OK\r\n${plain}`), DATA],
  ];
  for (const answer of answers) {
    const isOld =
      !(answer[0] as Buffer).includes("1.1") ||
      !/content-length|chunked|100/i.test(String(answer[0]));
    const { api } = await serve(() => ({ pieces: answer, close: isOld }));
    for (let i = 0; i < 7; i += 1) await get(api);
  }
});

test("bytes after an answer do not become part of the next", async () => {
  const whole = Buffer.concat([Buffer.from(`${HEAD}\r\n`), DATA]);
  const { api } = await serve((request) => ({
    pieces: request === 1 ? [whole, Buffer.from("HTTP/1.1 200 OK\r\nstray")] : [whole],
  }));
  for (let i = 0; i < 3; i += 1) await get(api);
});

test("a connection whose answer came before the request was all sent is not used again", async () => {
  const sockets: Socket[] = [];
  const server = createTcp((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.pause();
      socket.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  let idle = 0;
  const origin = { secure: false, host: "127.0.0.1", port };
  const [answer] = await new Promise<unknown[]>((resolve) => {
    let said: unknown;
    const connection = new BlockConnection(
      origin,
      () => {
        idle += 1;
      },
      () => resolve([said]),
    );
    connection.send({
      head: "PUT /x HTTP/1.1\r\n\r\n",
      // More than the kernel takes for a reader that does not read.
      body: Buffer.alloc(64 * 1024 * 1024),
      target: undefined,
      progress: () => true,
      end: (error, given) => {
        said = given ?? error;
        setImmediate(() => idle > 0 && connection.close());
      },
    });
  });
  expect(answer).toMatchObject({ status: 400 });
  expect(idle).toBe(0);
});

test("over TLS it is the same", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ebsmount-tls-"));
  const kept = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
  try {
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const words = `req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout ${key} -out ${cert}`;
    execFileSync("openssl", words.split(" "), { stdio: "ignore" });
    const secure = { key: readFileSync(key), cert: readFileSync(cert) };
    const whole = Buffer.concat([Buffer.from(`${HEAD}\r\n`), DATA]);
    const { api, connections } = await serve(
      () => ({ pieces: split(whole, [50, 300, 70_000]) }),
      secure,
    );
    await expect(get(api)).rejects.toThrow(/certificate was not accepted/);
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
    const before = connections();
    for (let i = 0; i < 5; i += 1) await get(api);
    expect(connections() - before).toBe(1);
  } finally {
    if (kept === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    else process.env.NODE_TLS_REJECT_UNAUTHORIZED = kept;
    rmSync(folder, { recursive: true });
  }
});

test("small chunked bodies are read, whatever the chunks, and nothing malformed is", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(fc.nat(300)),
      fc.nat(99),
      (body, cuts, cut) => {
        const whole = Buffer.from(body);
        const chunks = (whole.length === 0 ? [] : split(whole, cuts)).filter(
          (part) => part.length > 0,
        );
        const raw = Buffer.concat([
          ...chunks.flatMap((c) => [
            Buffer.from(`${c.length.toString(16)}\r\n`),
            c,
            Buffer.from("\r\n"),
          ]),
          Buffer.from("0\r\n\r\n"),
        ]);
        expect(Buffer.compare(readChunkedBody(raw) as Uint8Array, whole)).toBe(0);
        const part = raw.subarray(0, Math.floor(((raw.length - 1) * cut) / 100));
        expect(readChunkedBody(part)).toBeUndefined();
      },
    ),
  );
  for (const bad of ["x\r\n", "1\r\nabc\r\n", "0\r\n\r\nmore", "0\r\nTrailer: x\r\n\r\n"]) {
    expect(() => readChunkedBody(Buffer.from(bad))).toThrow(NotPlain);
  }
});

test("heads that are not plain are left to node:http", () => {
  const good = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y";
  expect(readResponseHead(good)).toEqual({
    status: 200,
    length: 5,
    keepAlive: true,
    headers: { "content-length": "5", x: "y" },
  });
  for (const bad of [
    good.replace("1.1", "1.0"),
    good.replace("200", "100"),
    good.replace("200", "204"),
    good.replace("5", "-5"),
    good.replace("5", "5, 5"),
    `${good}\r\nContent-Length: 6`,
    `${good}\r\n folded`,
    `${good}\r\nTransfer-Encoding: chunked`,
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    "HTTP/1.1 200 OK\r\nX: y",
    "rubbish",
  ]) {
    expect(readResponseHead(bad)).toBeUndefined();
  }
});
