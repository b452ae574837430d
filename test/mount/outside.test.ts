import { mkdirSync, symlinkSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { checkOutside } from "../../src/mount/outside.js";
import { Scratch } from "../support/scratch.js";

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
  mkdirSync(scratch.file("place/inner"), { recursive: true });
  mkdirSync(scratch.file("place-beside"));
  symlinkSync(scratch.file("place/inner"), scratch.file("link"));
});
afterEach(() => scratch.clean());

it.each(["place", "place/inner", "place/inner/of/what/is/not/made", "link", "link/new.log"])(
  "refuses a mount point that holds %s",
  (path) => {
    const check = () => checkOutside(scratch.file("place"), { "--log-file": scratch.file(path) });
    expect(check).toThrow(/it holds --log-file/);
  },
);

it("refuses one that holds this program", () => {
  expect(() => checkOutside("/", {})).toThrow(/it holds ebsmount itself/);
});

it.each(["place-beside", "elsewhere/x"])("allows %s beside it", (path) => {
  checkOutside(scratch.file("place"), {
    "--log-file": scratch.file(path),
    "--cache-dir": undefined,
  });
});
