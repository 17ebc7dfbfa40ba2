import { beforeAll } from "vitest";
import { RouteConnection } from "#netlink/route";
import { neighborsCompliance } from "../compliance/neighbors.js";
import { routesCompliance } from "../compliance/routes.js";
import { rulesCompliance } from "../compliance/rules.js";
import { enterFreshNamespaces, ip } from "../harness/namespace.js";

beforeAll(() => {
  enterFreshNamespaces();
  ip(
    "link add v0 type veth peer name v1",
    "link set v0 up",
    "link set v1 up",
    "addr add 10.1.0.1/16 dev v0",
    "addr add fd00::1/64 dev v0 nodad",
  );
});

const open = () => new RouteConnection();

rulesCompliance("kernel", open);
routesCompliance("kernel", open);
neighborsCompliance("kernel", open);
