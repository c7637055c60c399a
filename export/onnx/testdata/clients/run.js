// Runs jobs (see README.md) in ONNX Runtime. NARROW_ORT names the folder with node_modules/onnxruntime-node.
'use strict';
const fs = require('fs');
const path = require('path');
const ort = require(path.join(process.env.NARROW_ORT, 'node_modules', 'onnxruntime-node'));

const arrays = {
  float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int8: Int8Array,
  uint16: Uint16Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
};

function read(input) {
  const bytes = fs.readFileSync(input.file);
  const make = arrays[input.type];
  const data = new make(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  return new ort.Tensor(input.type, data, input.dims);
}

async function run(job) {
  const options = { graphOptimizationLevel: 'all', executionProviders: ['cpu'], intraOpNumThreads: 1, logSeverityLevel: 3 };
  // On x86 without VNNI the default products of u8 and s8 saturate; this makes them exact, as they are elsewhere.
  options.extra = { session: { x64quantprecision: '1' } };
  if (job.optimized) options.optimizedModelFilePath = job.optimized;
  const session = await ort.InferenceSession.create(job.model, options);
  const feeds = {};
  for (const input of job.inputs) feeds[input.name] = read(input);
  const results = await session.run(feeds);
  const outputs = session.outputNames.map((name, i) => {
    const t = results[name];
    const file = path.join(job.dir, `out${i}.bin`);
    fs.writeFileSync(file, Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength));
    return { name, type: t.type, dims: t.dims.map(Number), file };
  });
  await session.release();
  return outputs;
}

async function main() {
  const jobs = JSON.parse(fs.readFileSync(0, 'utf8'));
  const answers = [];
  for (const job of jobs) answers.push(await run(job));
  process.stdout.write(JSON.stringify(answers));
}

main().catch((err) => {
  process.stderr.write(`${err.stack || err}\n`);
  process.exit(1);
});
