/**
 * The place that was meant: the built command line beside the AWS CLI in the same environment, sessions that
 * find their way back, and a machine whose clock is wrong by an hour.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Endpoint, startEndpoint } from "../../src/server/endpoint.js";
import { Places, RULES, type Rule } from "../support/place-rules.js";
import { Rig } from "../support/rig.js";
import { CLI, must, run, Scratch, until } from "../support/scratch.js";
import { StsStub } from "../support/sts-stub.js";

const SNAPSHOT = "snap-0123456789abcdef0";
const KEYS = { AWS_ACCESS_KEY_ID: "ENVKEY", AWS_SECRET_ACCESS_KEY: "secret" };
const execute = promisify(execFile);

/** An AWS CLI of this machine, and which of the rules it can tell about. */
interface AwsCli {
  readonly path: string;
  readonly isVersion2: boolean;
  readonly readsEndpoints: boolean;
}

/** Debian's, and another in the PATH, which may be newer. */
async function findAwsClis(): Promise<AwsCli[]> {
  const inPath = (process.env.PATH ?? "").split(":").map((folder) => join(folder, "aws"));
  const found: AwsCli[] = [];
  for (const path of ["/usr/bin/aws", inPath.find((one) => existsSync(one))]) {
    if (path === undefined || !existsSync(path) || found.some((one) => one.path === path)) continue;
    const { stdout } = await execute(path, ["--version"]);
    const [, major, minor] = /aws-cli\/(\d+)\.(\d+)/.exec(stdout) ?? [];
    const isVersion2 = major === "2";
    // Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints".
    found.push({ path, isVersion2, readsEndpoints: Number(minor) >= (isVersion2 ? 13 : 29) });
  }
  return found;
}

const clis = await findAwsClis();

/** The AWS CLI that knows a rule; undefined where none here does. */
function cliFor({ cli }: Rule): AwsCli | undefined {
  return clis.find(({ isVersion2, readsEndpoints }) => {
    if (cli === "any") return true;
    if (cli === "2") return isVersion2;
    return cli === "endpoints" && readsEndpoints;
  });
}

/** A command's environment is this and nothing of this machine's own. */
function only(env: Readonly<Record<string, string>>): Record<string, string | undefined> {
  const nothing = Object.keys(process.env).map((name) => [name, undefined]);
  return { ...Object.fromEntries(nothing), ...env };
}

/** Servers and a home folder for one of the two. */
class Side {
  readonly places: Places;
  readonly home: string;

  constructor(places: Places, home: string) {
    this.places = places;
    this.home = home;
    mkdirSync(home);
    places.writeHome(home);
  }

  /** @param args before the options. @returns what was seen first of the command, and what it said. */
  async ask(command: string, args: readonly string[], rule: Rule): Promise<object> {
    const { profile, region, endpoint } = rule;
    const options = [
      ...(profile === undefined ? [] : ["--profile", profile]),
      ...(region === undefined ? [] : ["--region", region]),
      ...(endpoint === undefined ? [] : ["--endpoint-url", this.places.urls[endpoint] as string]),
    ];
    const env = only(this.places.environment(this.home, rule));
    const { stderr } = await run(command, [...args, ...options], { env });
    return { seen: this.places.take(), stderr };
  }
}

describe("the command line and the AWS CLI go to the same place", () => {
  const scratch = new Scratch();
  let ours: Side;
  let theirs: Side;

  beforeAll(async () => {
    [ours, theirs] = (await Promise.all(
      ["ours", "theirs"].map(async (name) => {
        const places = await Places.start();
        scratch.undo(() => places.close());
        return new Side(places, scratch.file(name));
      }),
    )) as [Side, Side];
  });

  afterAll(() => scratch.clean());

  const named = RULES.map((rule) => {
    const cli = cliFor(rule);
    const unasked = typeof rule.cli === "object" ? rule.cli.differs : "none here knows the rule";
    const note = cli === undefined ? ` (the AWS CLI is not asked: ${unasked})` : "";
    return { name: rule.rule + note, rule, cli };
  });

  test.each(named)("$name", async ({ rule, cli }) => {
    const file = scratch.file("exported.img");
    const exporting = [CLI, "export", SNAPSHOT, file, "--force", "--io-timeout", "3s"];
    const listing = ["ebs", "list-snapshot-blocks", "--snapshot-id", SNAPSHOT];
    const expected = { seen: rule.seen };
    await Promise.all([
      expect(ours.ask(process.execPath, exporting, rule)).resolves.toMatchObject(expected),
      cli && expect(theirs.ask(cli.path, listing, rule)).resolves.toMatchObject(expected),
    ]);
  });
});

describe("a session keeps its place", () => {
  let rig: Rig;
  /** Where the environment leads by the time of the commit. */
  let other: Endpoint;
  let home: string;

  beforeAll(async () => {
    rig = await Rig.start();
    other = await startEndpoint({ store: rig.scratch.file("other-store") });
    rig.scratch.undo(() => other.close());
    home = rig.scratch.file("home");
    mkdirSync(join(home, ".aws"), { recursive: true });
    const keys = "aws_access_key_id = A\naws_secret_access_key = s\n";
    writeFileSync(
      join(home, ".aws/config"),
      `[default]\nregion = us-east-1\nendpoint_url = ${other.url}\n${keys}[profile meant]\nregion = eu-west-3\nservices = s\n${keys}[services s]\nebs =\n  endpoint_url = ${rig.endpoint.url}\n`,
    );
  });

  afterAll(() => rig.clean());

  /** Nothing of the rig's own place and keys. */
  const environment = (more: Record<string, string> = {}) => ({
    HOME: home,
    EBSMOUNT_ENDPOINT_URL: "",
    EBSMOUNT_REGION: "",
    AWS_ACCESS_KEY_ID: "",
    AWS_SECRET_ACCESS_KEY: "",
    ...more,
  });

  test.each([
    ["AWS_PROFILE", [], { AWS_PROFILE: "meant" }],
    ["AWS_DEFAULT_PROFILE", [], { AWS_DEFAULT_PROFILE: "meant" }],
    ["--profile", ["--profile", "meant"], {}],
    ["keys in the environment and AWS_PROFILE", [], { AWS_PROFILE: "meant", ...KEYS }],
  ])("of %s, which are not there at the commit", async (name, args, env) => {
    const folder = name.replace(/\W/g, "");
    const mounting = ["create", "--size", "1GiB", "--no-writeback", ...args];
    const place = await rig.mount(mounting, folder, environment(env));
    await must("dd", [
      "if=/dev/urandom",
      `of=${place}/volume.img`,
      "bs=4k",
      "count=1",
      "conv=notrunc,fsync",
    ]);
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const [{ pid, session }] = mounts.filter(
      (one: { mountPoint: string }) => one.mountPoint === place,
    );
    const record = JSON.parse(
      readFileSync(join(rig.scratch.file("state"), "sessions", session, "session.json"), "utf8"),
    );
    expect(record.context).toEqual({
      region: "eu-west-3",
      endpointUrl: rig.endpoint.url,
      ...(!("AWS_ACCESS_KEY_ID" in env) && { profile: "meant" }),
    });
    process.kill(pid, "SIGKILL");
    await until("the process is gone", () => !existsSync(`/proc/${pid}`));
    await rig.run(["unmount", place]);
    const now = environment({ AWS_ENDPOINT_URL: other.url, AWS_REGION: "us-west-2" });
    const snapshot = (await rig.must(["commit", session], { env: now })).trim();
    expect(snapshot).toMatch(/^snap-/);
    expect(rig.endpoint.stats().snapshots.map((one) => one.snapshotId)).toContain(snapshot);
    expect(other.stats().operations.total.calls).toBe(0);
  });
});

describe.each([
  ["an hour ahead", 3_600_000],
  ["an hour behind", -3_600_000],
])("every command works with a clock that is %s", (_name, clockMs) => {
  let rig: Rig;
  let sts: StsStub;
  let env: Record<string, string>;

  beforeAll(async () => {
    const keys = { accessKeyId: "ROLEKEY", secretAccessKey: "secret" };
    const credentials = { ...keys, sessionToken: "token" };
    // It refuses requests that are signed at another time than its own.
    rig = await Rig.start({ credentials });
    sts = await StsStub.start();
    rig.scratch.undo(() => sts.close());
    sts.keys = credentials;
    const home = rig.scratch.file("home");
    mkdirSync(join(home, ".aws"), { recursive: true });
    writeFileSync(
      join(home, ".aws/config"),
      `[profile x]\nregion = us-east-1\nrole_arn = r\nsource_profile = y\n[profile y]\naws_access_key_id = A\naws_secret_access_key = s\n`,
    );
    env = {
      HOME: home,
      AWS_ACCESS_KEY_ID: "",
      AWS_SECRET_ACCESS_KEY: "",
      AWS_PROFILE: "x",
      AWS_ENDPOINT_URL_STS: sts.url,
      NODE_OPTIONS: `--import=${new URL("../support/wrong-clock.mjs", import.meta.url)}`,
      WRONG_CLOCK_MS: String(clockMs),
    };
  });

  afterAll(() => rig.clean());

  test("import, export, mount, create, commit", async () => {
    const image = await rig.image("disk.img", 64 << 20, [0, 3 << 20], [40 << 20, 1 << 20]);
    const snapshot = (await rig.must(["import", image], { env })).trim();
    const exported = rig.scratch.file("exported.img");
    await rig.must(["export", snapshot, exported], { env });
    await must("cmp", ["-n", String(64 << 20), image, exported]);

    const place = await rig.mount(["mount", snapshot], "read", env);
    await must("cmp", ["-n", String(64 << 20), image, `${place}/${snapshot}.img`]);
    await rig.must(["unmount", place], { env });

    const blank = await rig.mount(["create", "--size", "1GiB"], "blank", env);
    await must("dd", [`if=${image}`, `of=${blank}/volume.img`, "bs=1M", "conv=notrunc"]);
    const made = (await rig.must(["unmount", blank], { env })).trim();
    const again = rig.scratch.file("again.img");
    await rig.must(["export", made, again], { env });
    await must("cmp", ["-n", String(64 << 20), image, again]);
    // Each process assumes the role once, and once in vain to find the clock out.
    expect(sts.calls.length).toBeLessThanOrEqual(2 * 7);
    const { operations } = rig.endpoint.stats();
    expect(operations.ListSnapshotBlocks.calls).toBeLessThan(30);
  });
});
