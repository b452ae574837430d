import { describe, expect, it } from "vitest";
import { kernelOptions, parseMountOptions } from "../../src/fuse/mount-options.js";

describe("parseMountOptions", () => {
  it("sorts options by who acts on them", () => {
    const parsed = parseMountOptions(["ro,allow_other", "uid=1000", "gid=100,umask=027,noatime"]);
    expect(parsed).toEqual({
      kernel: ["allow_other", "noatime"],
      allowOther: true,
      readOnly: true,
      uid: 1000,
      gid: 100,
      umask: 0o027,
    });
  });

  it("lets the last of ro and rw win and passes over what only /etc/fstab means", () => {
    const fstab = ["defaults,noauto,nofail,_netdev,user,x-systemd.automount", "ro", "rw", ""];
    expect(parseMountOptions(fstab)).toMatchObject({ kernel: [], readOnly: false });
    expect(parseMountOptions([]).readOnly).toBeUndefined();
  });

  it.each([
    ["allow_othr", /"allow_othr" is not known/],
    ["suid", /"suid" is not known/],
    ["dev", /"dev" is not known/],
    ["allow_other=1", /"allow_other=1" is not known/],
    ["uid=root", /"uid=root" needs a number/],
    ["uid", /"uid" needs a number/],
    ["umask=089", /"umask=089" needs an octal/],
    ["umask=7777", /needs an octal number from 0 to 777/],
    ["max_read=-1", /needs a number/],
  ])("refuses %s by name", (option, message) => {
    expect(() => parseMountOptions(["ro", option])).toThrow(message);
  });
});

describe("kernelOptions", () => {
  it("always guards against a foreign disk's devices and setuid programs, and checks modes", () => {
    expect(kernelOptions(parseMountOptions(["noatime"]), true)).toEqual([
      "ro",
      "nosuid",
      "nodev",
      "default_permissions",
      "noatime",
    ]);
    expect(kernelOptions(parseMountOptions([]), false)[0]).toBe("rw");
    expect(kernelOptions(parseMountOptions(["ro"]), false)[0]).toBe("ro");
    expect(kernelOptions(parseMountOptions(["rw"]), true)[0]).toBe("ro");
  });
});
