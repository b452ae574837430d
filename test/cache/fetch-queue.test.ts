import fc from "fast-check";
import { expect, test } from "vitest";
import { FetchQueue, type Ticket } from "../../src/cache/fetch-queue.js";

test("urgent fetches go first, and never more run than may", async () => {
  const queue = new FetchQueue({ concurrency: 2 });
  const order: string[] = [];
  const enter = (name: string, urgent: boolean): Ticket => {
    const ticket = queue.enter(urgent);
    void ticket.started.then((runs) => order.push(runs ? name : `${name} cancelled`));
    return ticket;
  };
  const tickets = [enter("a", false), enter("b", false), enter("c", false), enter("d", false)];
  const urgent = enter("e", true);
  queue.promote(tickets[3] as Ticket);
  expect(queue.cancel(tickets[2] as Ticket)).toBe(true);
  expect(queue.cancel(tickets[0] as Ticket)).toBe(false);
  for (const ticket of [tickets[0], tickets[1], urgent, tickets[3]])
    queue.leave(ticket as Ticket, "well");
  await Promise.resolve();
  await Promise.resolve();
  expect(order.sort()).toEqual(["a", "b", "c cancelled", "d", "e"]);
  expect([queue.running, queue.waiting]).toEqual([0, 0]);
});

test("an urgent fetch overtakes those ahead of it", async () => {
  const queue = new FetchQueue({ concurrency: 1 });
  const running = queue.enter(false);
  const ahead = queue.enter(false);
  const urgent = queue.enter(true);
  queue.leave(running, "well");
  expect([urgent.state, ahead.state]).toEqual(["running", "waiting"]);
});

test("whatever the operations: the limit holds, all get their turn", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.array(
        fc.tuple(fc.constantFrom("enter", "urgent", "leave", "cancel", "promote"), fc.nat(9)),
      ),
      (concurrency, steps) => {
        const queue = new FetchQueue({ concurrency });
        const tickets: Ticket[] = [];
        for (const [step, n] of steps) {
          const ticket = tickets[n % Math.max(1, tickets.length)];
          if (step === "enter" || step === "urgent") tickets.push(queue.enter(step === "urgent"));
          else if (ticket === undefined) continue;
          else if (step === "leave") queue.leave(ticket, "well");
          else if (step === "cancel") queue.cancel(ticket);
          else queue.promote(ticket);
          const running = tickets.filter((t) => t.state === "running").length;
          const waiting = tickets.filter((t) => t.state === "waiting").length;
          expect([queue.running, queue.waiting]).toEqual([running, waiting]);
          expect(running).toBe(Math.min(concurrency, running + waiting));
        }
      },
    ),
  );
});

test("throttling cuts the limit once a burst, success brings it back", () => {
  let throttles = 0;
  let now = 0;
  const queue = new FetchQueue({ concurrency: 64, throttles: () => throttles, now: () => now });
  const one = (went: "well" | "badly" = "well") => queue.leave(queue.enter(true), went);
  throttles += 10;
  one();
  expect(queue.limit).toBe(44);
  throttles += 10;
  one();
  expect(queue.limit).toBe(44);
  now += 1_000;
  throttles += 1;
  one();
  expect(queue.limit).toBe(31);
  for (let i = 0; i < 1000; i += 1) one("badly");
  expect(queue.limit).toBe(31);
  for (let i = 0; i < 40 * 64; i += 1) one();
  expect(queue.limit).toBe(64);
  for (let i = 0; i < 100; i += 1) {
    now += 1_000;
    throttles += 1;
    one();
  }
  expect(queue.limit).toBe(1);
});

test("over a slow line readahead leaves the last place to a reader", () => {
  let line = 3;
  const queue = new FetchQueue({ concurrency: 64, line: () => line });
  const ahead = Array.from({ length: 10 }, () => queue.enter(false));
  expect(queue.running).toBe(2);
  const reader = queue.enter(true);
  expect(reader.state).toBe("running");
  expect(queue.running).toBe(3);
  line = 64;
  queue.leave(reader, "well");
  expect(ahead.filter(({ state }) => state === "running")).toHaveLength(10);
});
