/** The thread's way to its requests, on a pipe in place of /dev/fuse: none is missed, however they come. */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openRequests } from "../../../src/fuse/kernel/request-reader.js";
import { Scratch } from "../../support/scratch.js";

let scratch: Scratch;
let pipe: string;
let fd: number;
beforeEach(() => {
  scratch = new Scratch();
  pipe = scratch.file("pipe");
  execFileSync("mkfifo", [pipe]);
  fd = openSync(pipe, constants.O_RDWR);
  scratch.undo(() => closeSync(fd));
});
afterEach(() => scratch.clean());

test("gets what is there, what comes at once, and what it has to wait for", () => {
  const receive = openRequests(fd);
  const buffer = Buffer.alloc(8192);
  for (let i = 0; i < 1000; i += 1) {
    writeSync(fd, `now ${i}`);
    expect(buffer.toString("latin1", 0, receive(buffer))).toBe(`now ${i}`);
  }
  const words = ["a", "b", "c", "d", "e", "f"];
  const script = `for word in ${words.join(" ")}; do printf $word; sleep 0.02; done > ${pipe}`;
  const writer = spawn("sh", ["-c", script], { stdio: "ignore" });
  scratch.undo(() => writer.kill("SIGKILL"));
  for (const word of words) expect(buffer.toString("latin1", 0, receive(buffer))).toBe(word);
});

test("costs nothing while nothing comes", () => {
  const receive = openRequests(fd);
  const buffer = Buffer.alloc(8192);
  const writer = spawn("sh", ["-c", `sleep 0.4; printf x > ${pipe}`], { stdio: "ignore" });
  scratch.undo(() => writer.kill("SIGKILL"));
  const ticks = () => {
    const fields = readFileSync("/proc/self/stat", "latin1").split(") ")[1]?.split(" ") ?? [];
    return Number(fields[11]) + Number(fields[12]);
  };
  const before = ticks();
  expect(receive(buffer)).toBe(1);
  // Of about 40 that passed.
  expect(ticks() - before).toBeLessThan(10);
});
