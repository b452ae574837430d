/**
 * The endpoint against the service's own model, as botocore ships it: every constraint of every
 * parameter is tried at its edge and one step beyond, every refusal is one that the model knows, and
 * every response has the model's members. Requests are written by hand: an SDK would not send most.
 */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { type Endpoint, startEndpoint } from "../../src/server/endpoint.js";
import { Scratch } from "../support/scratch.js";
import { blockOf, sha256 } from "./rig.js";

/** Debian's; newer packages have it compressed. */
const FOLDER = "/usr/lib/python3/dist-packages/botocore/data/ebs/2019-11-02";
const MODEL = [`${FOLDER}/service-2.json`, `${FOLDER}/service-2.json.gz`].find(existsSync);

interface Member {
  readonly shape: string;
  readonly location?: "uri" | "querystring" | "header";
  readonly locationName?: string;
}

interface Shape {
  readonly type: string;
  readonly min?: number;
  readonly max?: number;
  readonly pattern?: string;
  readonly enum?: readonly string[];
  readonly required?: readonly string[];
  readonly members?: Readonly<Record<string, Member>>;
  readonly member?: Member;
  readonly payload?: string;
  readonly error?: { readonly httpStatusCode: number };
}

interface Operation {
  readonly http: {
    readonly method: string;
    readonly requestUri: string;
    readonly responseCode?: number;
  };
  readonly input: { readonly shape: string };
  readonly output: { readonly shape: string };
  readonly errors: readonly { readonly shape: string }[];
}

interface Model {
  readonly operations: Readonly<Record<string, Operation>>;
  readonly shapes: Readonly<Record<string, Shape>>;
}

type Input = Readonly<Record<string, unknown>>;

const model: Model = readModel();
const isHere = MODEL !== undefined;
const shapeOf = (name: string): Shape => model.shapes[name]!;
const inputOf = (name: string): Shape => shapeOf(model.operations[name]!.input.shape);

function readModel(): Model {
  if (MODEL === undefined) return { operations: {}, shapes: {} };
  const bytes = readFileSync(MODEL);
  const text = MODEL.endsWith(".gz") ? gunzipSync(bytes) : bytes;
  return JSON.parse(text.toString("utf8")) as Model;
}

/** In botocore 1.43's model; an older one may lack them. */
const NEWER_MEMBERS = ["SseType"];
const NEWER_REASONS = ["WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE", "GRANT_NOT_FOUND"];

const scratch = new Scratch();
let endpoint: Endpoint;
let completed: string;
let token: string;

beforeAll(async () => {
  endpoint = await startEndpoint({ store: scratch.file("store"), maxPending: 1000 });
  scratch.undo(() => endpoint.close());
  if (!isHere) return;
  completed = await started();
  await sendInput("PutSnapshotBlock", await inputFor("PutSnapshotBlock", completed));
  await sendInput("CompleteSnapshot", { SnapshotId: completed, ChangedBlocksCount: 1 });
  const list = await sendInput("ListSnapshotBlocks", { SnapshotId: completed });
  token = (list.fields.Blocks as { BlockToken: string }[])[0]!.BlockToken;
});
afterAll(() => scratch.clean());

interface Sent {
  readonly status: number;
  readonly headers: Headers;
  readonly fields: Input;
  readonly body: Buffer;
}

/** Puts each member where the model wants it; what is undefined is left out. */
async function sendInput(name: string, input: Input): Promise<Sent> {
  const { http } = model.operations[name]!;
  const { members = {}, payload } = inputOf(name);
  let path = http.requestUri;
  const query = new URLSearchParams();
  const headers: Record<string, string> = {};
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(input)) {
    const { location, locationName = key } = members[key]!;
    if (value === undefined || key === payload) continue;
    const text = String(value);
    if (location === "uri") path = path.replace(`{${locationName}}`, encodeURIComponent(text));
    else if (location === "querystring") query.set(locationName, text);
    else if (location === "header") headers[locationName] = text;
    else fields[key] = value;
  }
  const block = payload === undefined ? undefined : (input[payload] as Buffer | undefined);
  const body = block ?? (name === "StartSnapshot" ? JSON.stringify(fields) : undefined);
  const response = await fetch(`${endpoint.url}${path}?${query}`, {
    method: http.method,
    headers,
    ...(body !== undefined && { body }),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const isJson = response.headers.get("content-type") === "application/json";
  const parsed = isJson ? (JSON.parse(bytes.toString("utf8")) as Input) : {};
  return { status: response.status, headers: response.headers, fields: parsed, body: bytes };
}

async function started(): Promise<string> {
  return String((await sendInput("StartSnapshot", { VolumeSize: 1 })).fields.SnapshotId);
}

/** A request that is right. */
async function inputFor(name: string, pending?: string): Promise<Input> {
  switch (name) {
    case "StartSnapshot":
      return { VolumeSize: 1 };
    case "PutSnapshotBlock":
      return {
        SnapshotId: pending ?? (await started()),
        BlockIndex: 0,
        BlockData: blockOf(1),
        DataLength: BLOCK_SIZE,
        Checksum: sha256(blockOf(1)).toString("base64"),
        ChecksumAlgorithm: "SHA256",
      };
    case "CompleteSnapshot":
      return { SnapshotId: await started(), ChangedBlocksCount: 0 };
    case "GetSnapshotBlock":
      return { SnapshotId: completed, BlockIndex: 0, BlockToken: token };
    case "ListChangedBlocks":
      return { FirstSnapshotId: completed, SecondSnapshotId: completed };
    default:
      return { SnapshotId: completed };
  }
}

/** A text of this length that fits; undefined if there is none of the kinds tried. */
function textOf({ pattern }: Shape, length: number): string | undefined {
  for (const start of ["", "snap-", "arn:aws:kms::123456789012:key/"]) {
    for (const filling of ["a", "1"]) {
      const text = start + filling.repeat(Math.max(0, length - start.length));
      if (text.length === length && new RegExp(pattern ?? "", "u").test(text)) return text;
    }
  }
  return undefined;
}

const BAD_TEXTS = ["", " ", "snap-XYZ", "snap-", "é!", "a b", "a\tb"];

interface Values {
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

/** Values at a shape's edges, and just outside. */
function edges(name: string): Values {
  const shape = shapeOf(name);
  const { min, max, pattern } = shape;
  const isSet = (value: unknown) => value !== undefined;
  if (shape.enum !== undefined) {
    return { good: shape.enum, bad: ["", "other", shape.enum[0]!.toLowerCase()] };
  }
  switch (shape.type) {
    case "integer":
    case "long":
      return {
        good: [min, max].filter(isSet),
        bad: [min === undefined ? "x" : min - 1, max === undefined ? "x" : max + 1, "x", 1.5],
      };
    case "boolean":
      return { good: [true, false], bad: ["true", 1] };
    case "string": {
      const most = max ?? 8;
      const all = Array.from({ length: most + 1 }, (_, length) => length);
      const shortest = all.find(
        (length) => length >= (min ?? 0) && textOf(shape, length) !== undefined,
      );
      const lengths = [shortest ?? 0, most - 1, most];
      const unfit = BAD_TEXTS.filter((text) => !new RegExp(pattern ?? "", "u").test(text));
      return {
        good: lengths.map((length) => textOf(shape, length)).filter(isSet),
        bad: [...unfit, max === undefined ? undefined : textOf(shape, max + 1)].filter(isSet),
      };
    }
    case "list":
      return listEdges(shapeOf(shape.member!.shape));
    default:
      return { good: [], bad: [] };
  }
}

/** One item, each of whose members is tried in turn. */
function listEdges({ members = {} }: Shape): Values {
  const item = Object.fromEntries(
    Object.entries(members).map(([key, { shape }]) => [key, textOf(shapeOf(shape), 3)]),
  );
  const each = (kind: keyof Values) =>
    Object.entries(members).flatMap(([key, { shape }]) =>
      edges(shape)[kind].map((value) => [{ ...item, [key]: value }]),
    );
  return { good: [[], ...each("good")], bad: [{}, "x", ["x"], [null], ...each("bad")] };
}

/** Whether a value beyond the model's limits is refused, where the documentation allows more. */
const DOCUMENTED: Readonly<Record<string, (value: unknown) => boolean>> = {
  // A number below the model's minimum is taken, and 100 entries are listed.
  MaxResults: (value) => value !== 99,
};

/** A value that fits may still be one that there is not; the refusal is then about that. */
const LOOKED_UP: Readonly<Record<string, RegExp>> = {
  SnapshotId: /^ResourceNotFoundException/,
  BlockToken: /INVALID_BLOCK_TOKEN$/,
  PageToken: /INVALID_PAGE_TOKEN$/,
  Checksum: /^ValidationException INVALID_PARAMETER_VALUE$/,
};

const said = (sent: Sent) =>
  sent.status < 300 ? "" : `${sent.headers.get("x-amzn-errortype")} ${sent.fields.Reason}`;

function isKnownRefusal(operation: string, sent: Sent): boolean {
  const name = sent.headers.get("x-amzn-errortype") ?? "";
  const { errors } = model.operations[operation]!;
  const shape = errors.some((error) => error.shape === name) ? shapeOf(name) : undefined;
  const reason = sent.fields.Reason;
  const reasons = shapeOf(shape?.members?.Reason?.shape ?? "")?.enum;
  return (
    shape?.error?.httpStatusCode === sent.status &&
    String(sent.fields.Message).length <= (shapeOf("ErrorMessage").max ?? 256) &&
    (reason === undefined || [...(reasons ?? []), ...NEWER_REASONS].includes(String(reason)))
  );
}

const parameters = Object.keys(model.operations).flatMap((operation) =>
  Object.entries(inputOf(operation).members ?? {}).map(
    ([name, member]) => [operation, name, member] as const,
  ),
);

describe.skipIf(!isHere)(`the model of botocore${isHere ? "" : ` (not in ${FOLDER})`}`, () => {
  test("has something to say", () => {
    expect(parameters.length).toBeGreaterThan(25);
    const tried = parameters.flatMap(([, , { shape }]) => {
      const { good, bad } = edges(shape);
      return [...good, ...bad];
    });
    expect(tried.length).toBeGreaterThan(150);
  });

  test.each(parameters)("%s.%s", async (operation, name, { shape, location }) => {
    const { good, bad } = edges(shape);
    for (const value of good) {
      const partner = name === "KmsKeyArn" ? { Encrypted: true } : {};
      const input = { ...(await inputFor(operation)), ...partner, [name]: value };
      const sent = await sendInput(operation, input);
      const refusal = said(sent);
      const label = `${JSON.stringify(value)}: ${refusal}`;
      if (refusal !== "") expect(isKnownRefusal(operation, sent), label).toBe(true);
      const allowed = LOOKED_UP[shape] ?? /^$/;
      expect(refusal === "" || allowed.test(refusal), label).toBe(true);
    }
    for (const value of bad) {
      // A blank label or header is no value at all; a blank query parameter is one.
      const isBlank = String(value).trim() === "";
      if (isBlank && (location === "uri" || location === "header")) continue;
      const sent = await sendInput(operation, { ...(await inputFor(operation)), [name]: value });
      const isRefused = DOCUMENTED[shape]?.(value) ?? true;
      const label = `${JSON.stringify(value)}: ${sent.status} ${said(sent)}`;
      expect(sent.status, label).toBe(isRefused ? 400 : okOf(operation));
      if (isRefused) expect(isKnownRefusal(operation, sent), label).toBe(true);
    }
    if (inputOf(operation).required?.includes(name) && location !== "uri") {
      const sent = await sendInput(operation, {
        ...(await inputFor(operation)),
        [name]: undefined,
      });
      expect(said(sent), "left out").toMatch(/^ValidationException/);
    }
  });

  test.each(Object.keys(model.operations))("%s responds with the model's members", async (name) => {
    const sent = await sendInput(name, await inputFor(name));
    expect(sent.status).toBe(okOf(name));
    const { members = {}, payload } = shapeOf(model.operations[name]!.output.shape);
    for (const [key, { location, locationName, shape }] of Object.entries(members)) {
      if (location === "header") expect(sent.headers.get(locationName!), key).toBeTruthy();
      else if (key !== payload) check(sent.fields[key], shape, key);
    }
    const known = [...Object.keys(members), ...NEWER_MEMBERS];
    expect(Object.keys(sent.fields).filter((key) => !known.includes(key))).toEqual([]);
  });
});

function okOf(operation: string): number {
  return model.operations[operation]!.http.responseCode ?? 200;
}

/** What the endpoint sends is of the shape, where it is there at all. */
function check(value: unknown, name: string, where: string): void {
  if (value === undefined || value === null) return;
  const { type, min, max, pattern, members, member, ...shape } = shapeOf(name);
  if (shape.enum !== undefined) expect(shape.enum, where).toContain(value);
  if (type === "string") {
    const text = String(value);
    expect(typeof value, where).toBe("string");
    expect(text.length, where).toBeGreaterThanOrEqual(min ?? 0);
    expect(text.length, where).toBeLessThanOrEqual(max ?? Number.POSITIVE_INFINITY);
    expect(text, where).toMatch(new RegExp(pattern ?? "", "u"));
  } else if (type === "list") {
    expect(Array.isArray(value), where).toBe(true);
    for (const item of value as unknown[]) check(item, member!.shape, where);
  } else if (type === "structure") {
    const item = value as Input;
    for (const key of Object.keys(item)) check(item[key], members![key]!.shape, `${where}.${key}`);
  } else {
    expect(typeof value, where).toBe("number");
  }
}
