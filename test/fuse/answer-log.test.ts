import { expect, test } from "vitest";
import { Failure } from "../../src/common/failure.js";
import { AnswerLog } from "../../src/fuse/answer-log.js";

function logAt(clock: { now: number }) {
  const lines: [string, string][] = [];
  const log = new AnswerLog(
    (level, message) => void lines.push([level, message]),
    () => clock.now,
  );
  return { log, lines };
}

test("trouble is a line, everyday answers are not, a defect is an error", () => {
  const { log, lines } = logAt({ now: 0 });
  expect(log.errno(new Failure("EACCES", "Block 7 of snap-1 is refused."))).toBe("EACCES");
  expect(log.errno(new Failure("ENOENT", "There is no file x."))).toBe("ENOENT");
  expect(log.errno(new TypeError("undefined is not a function"))).toBe("EIO");
  expect(lines.map(([level]) => level)).toEqual(["warn", "debug", "error"]);
  expect(lines[0]?.[1]).toBe("EACCES: Block 7 of snap-1 is refused.");
});

test("a storm of failures is rationed and counted", () => {
  const clock = { now: 0 };
  const { log, lines } = logAt(clock);
  const fail = () => log.errno(new Failure("ETIMEDOUT", "No answer."));
  for (let i = 0; i < 1000; i += 1) expect(fail()).toBe("ETIMEDOUT");
  expect(lines).toHaveLength(20);
  clock.now += 60_000;
  fail();
  expect(lines.at(-1)?.[1]).toBe("ETIMEDOUT: No answer. (980 more failures were not logged.)");
  fail();
  expect(lines.at(-1)?.[1]).toBe("ETIMEDOUT: No answer.");
});
