import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OPCODE, WORD, WRITE_DATA_AT } from "../../../src/fuse/kernel/protocol.js";
import {
  allocateSharedRequests,
  RequestConsumer,
  RequestProducer,
} from "../../../src/fuse/kernel/shared-requests.js";

function put(producer: RequestProducer, slot: number, id: number, length: number) {
  const words = producer.words(slot);
  words[WORD.LENGTH] = length;
  words[WORD.OPCODE] = OPCODE.READ;
  words[WORD.UNIQUE] = id;
  for (let at = WORD.BODY * 4; at < length; at += 1) producer.bytes(slot)[at] = (id + at) & 255;
}

describe("requests in shared memory", () => {
  it("come out whole, once, in order, whatever the turns", () => {
    const step = fc.record({ length: fc.integer({ min: 40, max: 496 }), drain: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 250 }), (steps) => {
        const memory = allocateSharedRequests();
        const producer = new RequestProducer(memory);
        const consumer = new RequestConsumer(memory);
        const lengths: number[] = [];
        const seen: number[] = [];
        let awake = false;
        const drain = () => {
          consumer.drain((words) => {
            const id = words[WORD.UNIQUE]!;
            const length = words[WORD.LENGTH]!;
            const bytes = new Uint8Array(words.buffer, words.byteOffset, length);
            expect(length).toBe(lengths[id]);
            for (let at = 40; at < length; at += 1) expect(bytes[at]).toBe((id + at) & 255);
            seen.push(id);
          });
          awake = false;
        };
        for (const { length, drain: now } of steps) {
          const slot = producer.takeSlot();
          put(producer, slot, lengths.length, length);
          lengths.push(length);
          const wake = producer.push(slot, length, false);
          // A message is sent exactly when none is on its way.
          expect(wake).toBe(!awake);
          awake = true;
          if (now) drain();
        }
        drain();
        expect(seen).toEqual(lengths.map((_, id) => id));
      }),
      { numRuns: 30 },
    );
  });

  it("keep a write's data until it is released", () => {
    const memory = allocateSharedRequests();
    const producer = new RequestProducer(memory);
    const consumer = new RequestConsumer(memory);
    const held: number[] = [];
    for (let id = 0; id < 31; id += 1) {
      const slot = producer.takeSlot();
      producer.bytes(slot).fill(id, WRITE_DATA_AT, WRITE_DATA_AT + 4096);
      producer.push(slot, WRITE_DATA_AT + 4096, true);
    }
    consumer.drain((_words, slot) => held.push(slot));
    expect(new Set(held).size).toBe(31);
    expect(held).not.toContain(producer.takeSlot());
    held.forEach((slot, id) => {
      expect(consumer.slotBytes(slot, WRITE_DATA_AT, 4096).every((byte) => byte === id)).toBe(true);
    });
    consumer.releaseSlot(held[3]!);
    expect(producer.takeSlot()).toBe(held[3]);
  });

  it("make the reading thread wait when all slots or entries are in use, and go on", async () => {
    const memory = allocateSharedRequests();
    const consumer = new RequestConsumer(memory);
    const producerUrl = new URL("../../../dist/fuse/kernel/shared-requests.js", import.meta.url);
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.url).then(({ RequestProducer }) => {
        const producer = new RequestProducer(workerData.memory);
        for (let id = 0; id < 2000; id += 1) {
          const slot = producer.takeSlot();
          const words = producer.words(slot);
          words[0] = 96; words[2] = id; words[20] = id * 3;
          if (producer.push(slot, 96, id % 3 === 0)) parentPort.postMessage(0);
        }
        parentPort.postMessage(1);
      });`;
    const worker = new Worker(code, {
      eval: true,
      workerData: { memory, url: producerUrl.href },
    });
    const seen: number[] = [];
    await new Promise<void>((resolve, reject) => {
      worker.on("error", reject);
      worker.on("message", (message) => {
        consumer.drain((words, slot) => {
          const id = words[2]!;
          seen.push(id);
          if (slot >= 0) {
            setImmediate(() => {
              const data = consumer.slotBytes(slot, 80, 4);
              if (new DataView(data.buffer, data.byteOffset).getUint32(0, true) !== id * 3) {
                reject(new Error(`the data of ${id} was overwritten`));
              }
              consumer.releaseSlot(slot);
            });
          }
        });
        if (message === 1) resolve();
      });
    }).finally(() => worker.terminate());
    expect(seen).toEqual(Array.from({ length: 2000 }, (_, id) => id));
  });
});
