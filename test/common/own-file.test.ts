/** Files that others may have planted are not opened. */
import { chmodSync, chownSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openOwnFile } from "../../src/common/own-file.js";
import { must, Scratch } from "../support/scratch.js";

let scratch: Scratch;
let path: string;
beforeEach(() => {
  scratch = new Scratch();
  path = scratch.file("file");
});
afterEach(() => scratch.clean());

it("makes a file for its user alone, and takes it up again", async () => {
  const first = await openOwnFile(path, true);
  await first.writeFile("mine");
  await first.close();
  const again = await openOwnFile(path, true);
  expect(await again.readFile("utf8")).toBe("mine");
  expect((await again.stat()).mode & 0o777).toBe(0o600);
  await again.close();
});

it("does not make one unasked", async () => {
  await expect(openOwnFile(path, false)).rejects.toMatchObject({ code: "ENOENT" });
});

const planted: Record<string, () => unknown> = {
  "a file that others can write": () => {
    writeFileSync(path, "");
    chmodSync(path, 0o666);
  },
  "somebody else's file": () => {
    writeFileSync(path, "");
    chownSync(path, 65_534, 65_534);
  },
  "a symbolic link": () => {
    writeFileSync(scratch.file("target"), "untouched");
    symlinkSync(scratch.file("target"), path);
  },
  "a folder": () => mkdirSync(path),
  "a pipe that nobody reads": () => must("mkfifo", ["-m", "600", path]),
};
it.each(Object.keys(planted))("refuses %s", async (kind) => {
  await planted[kind]?.();
  await expect(openOwnFile(path, true)).rejects.toThrow();
  if (kind === "a symbolic link") {
    expect(readFileSync(scratch.file("target"), "utf8")).toBe("untouched");
  }
});
