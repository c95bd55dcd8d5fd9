// Drives a Tidegate server: node drive.js ADDRESS PROTOS < series.json > answers.json
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos] = process.argv.slice(2);
const definition = loader.loadSync(path.join(protos, "tidegate/v1/evaluation_service.proto"), {
  includeDirs: [protos],
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const tidegate = grpc.loadPackageDefinition(definition).tidegate.v1;
const client = new tidegate.EvaluationService(address, grpc.credentials.createInsecure());
const deadline = () => ({ deadline: Date.now() + 60000 });

// JSON has no NaN: a missing point is null there.
const series = JSON.parse(fs.readFileSync(0, "utf8"), (_, value) => (value === null ? NaN : value));
const metrics = series.metrics.map((name) => ({
  name,
  kind: "METRIC_KIND_GAUGE",
  direction: "DIRECTION_UP_IS_WORSE",
  margin: 0.1,
}));

function block(arm, rows, first = 0, last = rows[0].length) {
  return {
    arm,
    start_time: { seconds: series.start + first * series.step },
    step: { seconds: series.step },
    columns: last - first,
    values: rows.flatMap((row) => row.slice(first, last)),
  };
}

function failure(error) {
  return { code: error.code, details: error.details, rich: error.metadata.get("grpc-status-details-bin").length };
}

function analyze(request) {
  return new Promise((resolve, reject) => {
    client.Analyze(request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Opens an evaluation, feeds column by column, waits for every acknowledgement, and finishes.
function stream() {
  return new Promise((resolve, reject) => {
    const call = client.StreamEvaluation(deadline());
    const seen = { opened: null, acknowledged: [], updates: [] };
    const columns = series.baseline[0].length;
    let sequence = 0;
    let column = 0;
    const send = (arm, rows) => {
      sequence += 1;
      call.write({ block: { ...block(arm, rows, column, column + 1), sequence } });
    };
    const next = () => {
      if (column === columns) {
        call.write({ finish: {} });
        call.end();
        return;
      }
      send("ARM_CANARY", series.canary);
      send("ARM_BASELINE", series.baseline);
      column += 1;
    };
    call.on("error", reject);
    call.on("end", () => resolve(seen));
    call.on("data", (message) => {
      if (message.opened) {
        seen.opened = message.opened;
        next();
      } else if (message.acknowledgement) {
        seen.acknowledged.push(message.acknowledgement.sequence);
        if (message.acknowledgement.sequence === sequence) next();
      } else {
        seen.updates.push(message.update);
      }
    });
    call.write({ open: { metrics, options: { warm_up: { seconds: 0 } } } });
  });
}

// A block out of sequence ends the stream with an error that names what was expected.
function gap() {
  return new Promise((resolve) => {
    const call = client.StreamEvaluation(deadline());
    call.on("data", () => {});
    call.on("error", (error) => resolve(failure(error)));
    call.on("end", () => resolve(null));
    call.write({ open: { metrics } });
    call.write({ block: { ...block("ARM_CANARY", series.canary), sequence: 5 } });
  });
}

async function main() {
  const request = {
    metrics,
    blocks: [block("ARM_BASELINE", series.baseline), block("ARM_CANARY", series.canary)],
  };
  const answers = { unary: await analyze(request) };
  answers.refused = await analyze({ ...request, metrics: [] }).then(() => null, failure);
  answers.stream = await stream();
  answers.gap = await gap();
  client.close();
  process.stdout.write(JSON.stringify(answers));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
