import { afterEach, beforeEach, expect, test } from "vitest";
import { withSessionPlace } from "../../src/cli/session-options.js";
import { AwsHome } from "../support/aws-home.js";

const AWS_PLACE = {
  region: "eu-west-1",
  profile: "x",
  endpointUrl: "https://ebs.eu-west-1.amazonaws.com",
};
let home: AwsHome;

beforeEach(() => {
  home = new AwsHome({ AWS_ENDPOINT_URL: "http://127.0.0.1:1", AWS_REGION: "us-east-1" });
  home.config(
    "[profile here]\nendpoint_url = http://127.0.0.1:2\n[profile y]\nregion = us-west-1\n",
  );
});

afterEach(() => home.remove());

test("a session's place is its own, whatever the environment says now", async () => {
  expect(await withSessionPlace(AWS_PLACE, {})).toEqual(AWS_PLACE);
  expect(await withSessionPlace(AWS_PLACE, { other: 1 } as object)).toEqual({
    ...AWS_PLACE,
    other: 1,
  });
});

test("options go before it; another region has another endpoint, unless the endpoint is no region's", async () => {
  const region = "us-east-2";
  expect(await withSessionPlace(AWS_PLACE, { region })).toEqual({ region, profile: "x" });
  const local = { region: "eu-west-1", endpointUrl: "http://127.0.0.1:4566" };
  expect(await withSessionPlace(local, { region })).toEqual({ ...local, region });
  const endpointUrl = "http://127.0.0.1:4567";
  expect(await withSessionPlace(AWS_PLACE, { endpointUrl })).toEqual({ ...AWS_PLACE, endpointUrl });
});

test("another profile asks at the same place, unless it names one of its own", async () => {
  expect(await withSessionPlace(AWS_PLACE, { profile: "y" })).toEqual({
    ...AWS_PLACE,
    profile: "y",
  });
  expect(await withSessionPlace(AWS_PLACE, { profile: "here" })).toEqual({ profile: "here" });
  await expect(withSessionPlace(AWS_PLACE, { profile: "tpyo" })).rejects.toThrow(/"tpyo"/);
});
