/** After a request has settled nothing writes into its target or reads its body, whatever the server still sends. */
import { describe, expect, test } from "vitest";
import { randomSource } from "../../support/random.js";
import { until } from "../../support/scratch.js";
import { fullListener } from "./full-listener.js";
import { type Exchange, pause, response } from "./hostile-server.js";
import { BLOCK, bytes, Framed, failure, get, type Scheme, type Subject } from "./subject.js";

const HEAD = `HTTP/1.1 200 OK\r\nContent-Length: ${BLOCK}\r\n\r\n`;

/** Aborts, and sees that the request ends soon. */
async function abortNow(controller: AbortController, sending: Promise<unknown>): Promise<void> {
  const start = performance.now();
  controller.abort();
  await failure(sending, "aborted");
  expect(performance.now() - start).toBeLessThan(1000);
}

export function aborts(subject: Subject): void {
  describe.each<Scheme>(["http", "https"])("aborts over %s", (scheme) => {
    test("before it is sent, nothing is sent", async () => {
      const server = await subject.serve(scheme, (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      await failure(get(transport, server.url, {}, AbortSignal.abort("why")), "aborted");
      const controller = new AbortController();
      const sending = get(transport, server.url, {}, controller.signal);
      await abortNow(controller, sending);
      expect(server.requests).toHaveLength(0);
    });

    test.each<[string, (exchange: Exchange) => unknown]>([
      ["before the head", () => {}],
      ["inside the head", (exchange) => exchange.write("HTTP/1.1 200 O")],
      ["before the body", (exchange) => exchange.write(HEAD)],
      ["inside the body", (exchange) => exchange.write(HEAD, bytes(100_000, 1))],
    ])("%s, and the response comes after it", async (_what, script) => {
      const server = await subject.serve(scheme, script);
      const transport = await subject.transport();
      const framed = new Framed(BLOCK);
      const controller = new AbortController();
      const sending = get(transport, server.url, { target: framed.target }, controller.signal);
      await until("it has come", () => server.requests.length === 1);
      await pause(20);
      await abortNow(controller, sending);
      framed.target.fill(0x77);
      const [exchange] = server.requests;
      await exchange?.write(response(200, bytes(BLOCK, 2)), bytes(BLOCK, 3));
      await pause(50);
      framed.expect(Buffer.alloc(BLOCK, 0x77));
      await until("its connection is closed", () => server.open.size === 0);
    });

    test("inside a put, and its body can change at once", async () => {
      const server = await subject.serve(scheme, ({ socket }) => socket.pause());
      const transport = await subject.transport();
      const body = bytes(8 * BLOCK, 4);
      const controller = new AbortController();
      const sending = get(transport, server.url, { method: "PUT", body }, controller.signal);
      await until("it has come", () => server.requests.length === 1);
      await abortNow(controller, sending);
      body.fill(0x77);
      // What the kernel had taken is what the body was.
      const received: Buffer[] = [];
      const socket = server.requests[0]?.socket;
      socket?.on("data", (chunk: Buffer) => received.push(chunk));
      socket?.resume();
      await until("its connection is closed", () => server.open.size === 0);
      const end = Buffer.concat(received);
      expect(end.includes(Buffer.alloc(64, 0x77))).toBe(false);
    });

    test("a late abort changes nothing", async () => {
      const server = await subject.serve(scheme, (exchange) => exchange.respond("x"));
      const transport = await subject.transport();
      const controller = new AbortController();
      await get(transport, server.url, {}, controller.signal);
      controller.abort();
      await get(transport, server.url);
      expect(server.connections).toBe(1);
    });

    test("storms: no slot is written after its request has ended", async () => {
      const random = randomSource(7);
      const blocks = [bytes(BLOCK, 10), bytes(BLOCK, 11)];
      const server = await subject.serve(scheme, async (exchange) => {
        const block = blocks[exchange.index % 2] as Buffer;
        await exchange.write(HEAD);
        for (let at = 0; at < BLOCK; at += 65_536) {
          await exchange.write(block.subarray(at, at + 65_536));
          if (random() < 0.2) await pause(1);
        }
      });
      const transport = await subject.transport({ maxConnections: 8 });
      const slots = Array.from({ length: 12 }, () => new Framed(BLOCK));
      // Follows the machine's speed, so that some requests succeed and some do not.
      let patienceMs = 50;
      let succeeded = 0;
      let count = 0;
      const runSlot = async (slot: Framed): Promise<void> => {
        while (count < 240) {
          count += 1;
          const poison = count % 251;
          const controller = new AbortController();
          const timer = setTimeout(() => controller.abort(), random() * patienceMs);
          const sending = get(transport, server.url, { target: slot.target }, controller.signal);
          const { status } = await sending.catch((error: Error) => ({ status: error.message }));
          clearTimeout(timer);
          if (status === 200) {
            succeeded += 1;
            patienceMs *= 0.9;
            expect(blocks.some((block) => Buffer.compare(slot.target, block) === 0)).toBe(true);
          } else {
            expect(status).toBe("the request was aborted");
            patienceMs *= 1.05;
          }
          slot.target.fill(poison);
          await pause(random() * 10);
          expect(slot.target.every((byte) => byte === poison)).toBe(true);
          slot.expectFrame();
        }
      };
      await Promise.all(slots.map(runSlot));
      // Some of both, or it proves nothing.
      expect(succeeded).toBeGreaterThan(10);
      expect(succeeded).toBeLessThan(230);
    });
  });

  describe("aborts", () => {
    test("while it waits for a place", async () => {
      const server = await subject.serve("http", () => {});
      const transport = await subject.transport({ maxConnections: 1 });
      const first = new AbortController();
      const held = get(transport, server.url, {}, first.signal);
      await until("it has come", () => server.requests.length === 1);
      const controllers = [new AbortController(), new AbortController()] as const;
      const waiting = controllers.map(({ signal }) => get(transport, server.url, {}, signal));
      await abortNow(controllers[0], waiting[0] as Promise<unknown>);
      await abortNow(first, held);
      await until("the next one has come", () => server.requests.length === 2);
      await abortNow(controllers[1], waiting[1] as Promise<unknown>);
    });

    test("while it connects", async () => {
      const port = await fullListener("127.0.0.1");
      const transport = await subject.transport({ maxConnections: 1 });
      const controller = new AbortController();
      const sending = get(transport, `http://127.0.0.1:${port}/`, {}, controller.signal);
      await pause(50);
      await abortNow(controller, sending);
    });

    test("during the TLS handshake", async () => {
      const server = await subject.serve("http", () => {}, {
        accept: (socket) => socket.resume() !== undefined,
      });
      const transport = await subject.transport({ maxConnections: 1 });
      const controller = new AbortController();
      const url = server.url.replace("http:", "https:");
      const sending = get(transport, url, {}, controller.signal);
      await until("it is connected", () => server.connections === 1);
      await pause(20);
      await abortNow(controller, sending);
      const other = await subject.serve("https", (exchange) => exchange.respond("x"));
      expect((await get(transport, other.url)).status).toBe(200);
    });
  });
}
