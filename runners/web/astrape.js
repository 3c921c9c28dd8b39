// astrape.js: what `astrape export` wrote, streamed in a browser or in Node by ONNX Runtime.
//
// An ES module without dependencies: `ort` (of the npm package onnxruntime-web or onnxruntime-node) is handed in, and so
// is a function that reads a file of the export. The step has explicit state, so a stream is a loop: fill the inputs,
// run, keep `next.*` as `state.*`. Frames are arrays of one Float32Array a channel, as Web Audio has them. One row.

const FORMAT = "astrape-export", VERSION = 1;
const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array };

/** What went wrong, in one line that ends in a hint. */
export class AstrapeError extends Error {}

/** Exact fractions of the manifest, as pairs of BigInt: "22/2205" is [22n, 2205n]. */
const fraction = (text) => {
  const [top, bottom = "1"] = String(text).split("/");
  return [BigInt(top), BigInt(bottom)];
};
const times = ([a, b], [c, d]) => [a * c, b * d];
const over = ([a, b], [c, d]) => [a * d, b * c];
const plus = ([a, b], [c, d]) => [a * d + c * b, b * d];
const less = ([a, b], [c, d]) => a * d < c * b;
const floor = ([a, b]) => Number(a / b);  // of what is not negative
const ceil = ([a, b]) => Number((a + b - 1n) / b);
const whole = (count) => [BigInt(count), 1n];

/** Reads an export over HTTP: `Session.open(ort, fetched("exported/astrape-mini/"))`. */
export function fetched(folder) {
  const base = folder.endsWith("/") ? folder : `${folder}/`;
  return async (name) => {
    const answer = await fetch(base + name);
    if (!answer.ok) throw new AstrapeError(`${base}${name}: HTTP ${answer.status}: hint: serve a folder that astrape export wrote`);
    return new Uint8Array(await answer.arrayBuffer());
  };
}

/**
 * A stream through an export: any number of frames at a time.
 *
 * `inputs`, `outputs` and `controls` are the manifest's, by name; `hostLatency` is what a host compensates, in frames of
 * each output. With `constantLatency` a push gives as many frames as it has, that many late.
 */
export class Session {
  /**
   * @param ort ONNX Runtime: `InferenceSession` and `Tensor`.
   * @param read takes a file's name and gives its bytes, now or as a promise.
   * @param options `constantLatency` (false), and `session`, which goes to ONNX Runtime.
   */
  static async open(ort, read, options = {}) {
    let manifest;
    try {
      manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
    } catch (error) {
      if (error instanceof AstrapeError) throw error;
      throw new AstrapeError(`manifest.json: is damaged (${error.message}): hint: export anew`);
    }
    if (manifest.format !== FORMAT || manifest.version !== VERSION) {
      throw new AstrapeError(`manifest.json: format ${manifest.format} of version ${manifest.version}, and this reads ${FORMAT} of version ${VERSION}: hint: export anew`);
    }
    try {
      return await Session._opened(ort, manifest, read, options);
    } catch (error) {
      if (error instanceof AstrapeError) throw error;
      throw new AstrapeError(`${manifest.recipe ?? "manifest.json"}: cannot be opened (${error.message ?? error}): hint: export anew`);
    }
  }

  static async _opened(ort, manifest, read, options) {
    if (manifest.batch !== 1 || manifest.inputs.length !== 1) {
      throw new AstrapeError(`${manifest.recipe}: ${manifest.batch} rows and ${manifest.inputs.length} inputs, and this runs one of each: hint: export with --batch 1`);
    }
    if (!manifest.onnx) {
      throw new AstrapeError(`${manifest.recipe}: holds no step for 'onnx', which is what browsers run: hint: export with --format onnx`);
    }
    const load = async (name) => {
      const wanted = manifest.files[name]?.sha256;
      if (!wanted) throw new AstrapeError(`manifest.json: is damaged (it lists no '${name}'): hint: export anew`);
      const bytes = await read(name);
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      const found = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (found !== wanted) throw new AstrapeError(`${name}: is not what was written, by its checksum: hint: copy it again or export anew`);
      return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], ...options.session });
    };
    const step = await load(manifest.onnx.step);
    const named = (prefix, items) => items.map(({ name }) => prefix + name);
    const taken = [...named("input.", manifest.inputs), ...named("prepared.", manifest.prepared), ...named("state.", manifest.state)];
    const given = [...named("output.", manifest.outputs), ...named("next.", manifest.state)];
    if (!alike(taken, step.inputNames) || !alike(given, step.outputNames)) {
      throw new AstrapeError(`${manifest.onnx.step}: is not what manifest.json tells of: hint: export anew`);
    }
    const prepare = manifest.onnx.controls ? await load(manifest.onnx.controls) : null;
    return new Session(ort, manifest, step, prepare, options.constantLatency ?? false);
  }

  constructor(ort, manifest, step, prepare, constantLatency) {
    Object.assign(this, { manifest, constantLatency, _ort: ort, _step: step, _prepare: prepare });
    const named = (items) => Object.fromEntries(items.map((item) => [item.name, item]));
    this.inputs = named(manifest.inputs);
    this.outputs = named(manifest.outputs);
    this.controls = named(manifest.controls);
    this.hostLatency = Object.fromEntries(manifest.outputs.map((port) => [port.name, port.latency.host_frames]));
    this._input = manifest.inputs[0];
    this._values = {};
    this._prepared = null;
    this._busy = Promise.resolve();
    for (const { name, default: value } of manifest.controls) if (value !== null) this.set(name, value);
    this.reset();
  }

  /** Start anew, at time zero. Controls stay as they are. */
  reset() {
    this._state = {};
    for (const { name, shape, dtype, first } of this.manifest.state) this._state[`state.${name}`] = this._spread(shape, dtype, first);
    this._waiting = Array.from({ length: this._input.channels }, () => new Float32Array(0));
    this._heard = 0;
    this._silent = false;
    this.faults = [];
    this._given = {};
    this._late = {};
    for (const port of this.manifest.outputs) {
      const waits = this.constantLatency ? port.latency.host_frames - this._algorithmic(port) : 0;
      this._given[port.name] = 0;
      this._late[port.name] = Array.from({ length: port.channels }, () => new Float32Array(waits));
    }
  }

  /** Hold a control's value, a number or one a channel, from the next step on. */
  set(name, value) {
    const spec = this.controls[name];
    if (!spec) throw new AstrapeError(`unknown control '${name}': hint: there is ${Object.keys(this.controls).join(", ") || "none"}`);
    const given = typeof value === "number" ? [value] : Array.from(value);
    if (given.length !== 1 && given.length !== spec.channels) {
      throw new AstrapeError(`control '${name}' has ${spec.channels} channels, not ${given.length}: hint: give one number, or one a channel`);
    }
    for (const each of given) {
      if (!Number.isFinite(each)) throw new AstrapeError(`control '${name}' is ${each}: hint: give a number`);
      if (spec.min !== null && each < spec.min) throw new AstrapeError(`control '${name}' is ${each}: hint: give at least ${spec.min}`);
      if (spec.max !== null && each > spec.max) throw new AstrapeError(`control '${name}' is ${each}: hint: give at most ${spec.max}`);
    }
    this._values[name] = Float32Array.from({ length: spec.channels }, (_, at) => given[given.length === 1 ? 0 : at]);
    this._prepared = null;
  }

  /** Take any number of frames, none included; resolves to what can be computed, by output. Pushes keep their order. */
  push(frames) {
    const done = this._busy.then(() => this._push(frames));
    this._busy = done.catch(() => {});
    return done;
  }

  /** End the stream: resolves to exactly the frames that are missing, and leaves the session new. */
  flush() {
    const done = this._busy.then(async () => {
      const heard = over(whole(this._heard), fraction(this._input.rate)), missing = {};
      let until = heard;
      for (const port of this.manifest.outputs) {
        const rate = fraction(port.rate);
        const late = this.constantLatency ? port.latency.host_frames : this._algorithmic(port);
        missing[port.name] = Math.max(0, ceil(times(heard, rate)) + late - this._given[port.name]);
        const due = plus(over(whole(this._given[port.name] + missing[port.name]), rate), fraction(port.latency.framing_seconds));
        if (less(until, due)) until = due;
      }
      const count = ceil(times(until, fraction(this._input.rate))) - this._heard;
      const rest = await this._push(Array.from({ length: this._input.channels }, () => new Float32Array(count)));
      this.reset();
      for (const name in rest) rest[name] = rest[name].map((channel) => channel.slice(0, missing[name]));
      return rest;
    });
    this._busy = done.catch(() => {});
    return done;
  }

  async _push(frames) {
    const { channels, frames: quantum } = this._input;
    if (frames.length !== channels || frames.some((channel) => channel.length !== frames[0].length)) {
      throw new AstrapeError(`'${this._input.name}' takes ${channels} arrays of one length, not ${frames.length}: hint: one Float32Array a channel`);
    }
    if (this._prepared === null) await this._bringUpToDate();
    this._waiting = this._waiting.map((held, at) => joined(held, frames[at]));
    this._mute(this._waiting, frames[0].length);
    this._heard += frames[0].length;
    const steps = Math.floor(this._waiting[0].length / quantum);
    const made = {};
    for (const port of this.manifest.outputs) made[port.name] = Array.from({ length: port.channels }, () => new Float32Array(steps * port.frames));
    for (let at = 0; at < steps; at++) {
      const taken = new Float32Array(channels * quantum);
      this._waiting.forEach((channel, row) => taken.set(channel.subarray(at * quantum, (at + 1) * quantum), row * quantum));
      const given = { ...this._prepared, ...this._state };
      given[`input.${this._input.name}`] = new this._ort.Tensor("float32", taken, [1, channels, quantum]);
      const found = await this._step.run(given);
      for (const port of this.manifest.outputs) {
        const data = found[`output.${port.name}`].data;
        made[port.name].forEach((channel, row) => channel.set(data.subarray(row * port.frames, (row + 1) * port.frames), at * port.frames));
      }
      for (const { name } of this.manifest.state) this._state[`state.${name}`] = found[`next.${name}`];
    }
    this._waiting = this._waiting.map((channel) => channel.slice(steps * quantum));
    for (const port of this.manifest.outputs) {
      if (this.constantLatency) made[port.name] = this._due(port, made[port.name]);
      this._given[port.name] += made[port.name][0].length;
    }
    return made;
  }

  /** A queue that began with the frames a host waits for. */
  _due(port, made) {
    const heard = over(whole(this._heard), fraction(this._input.rate));
    const count = floor(times(heard, fraction(port.rate))) - this._given[port.name];
    const held = this._late[port.name].map((channel, at) => joined(channel, made[at]));
    this._late[port.name] = held.map((channel) => channel.slice(count));
    return held.map((channel) => channel.slice(0, count));
  }

  /** From its first frame that is not finite on, the input is heard as silence. */
  _mute(channels, arrived) {
    const from = channels[0].length - arrived;
    let first = this._silent ? from : Infinity;
    for (const channel of channels) {
      for (let at = from; at < Math.min(first, channel.length); at++) if (!Number.isFinite(channel[at])) first = at;
    }
    if (first >= channels[0].length) return;
    if (!this._silent) this.faults.push({ port: this._input.name, frame: this._heard + first - from });
    this._silent = true;
    for (const channel of channels) channel.fill(0, first);
  }

  /** What a step takes of the controls, derived once a change. */
  async _bringUpToDate() {
    const missing = this.manifest.controls.filter(({ name }) => !(name in this._values));
    if (missing.length) {
      const { name, channels } = missing[0];
      throw new AstrapeError(`control '${name}' (${channels} channels) has no value: hint: session.set("${name}", ...)`);
    }
    this._prepared = {};
    if (this._prepare === null) return;
    const given = {};
    for (const { name, channels } of this.manifest.controls) {
      if (this._prepare.inputNames.includes(`control.${name}`)) given[`control.${name}`] = new this._ort.Tensor("float32", this._values[name], [1, channels]);
    }
    this._prepared = await this._prepare.run(given);
  }

  _algorithmic(port) {
    return ceil(times(fraction(port.latency.algorithmic_seconds), fraction(port.rate)));
  }

  /** A tensor of first values: one number for all, or those of a row. */
  _spread(shape, dtype, first) {
    const size = shape.reduce((product, length) => product * length, 1), data = new ARRAYS[dtype](size);
    const values = Array.isArray(first) ? first.flat(Infinity) : [first];
    const number = dtype === "int64" ? (value) => BigInt(value) : Number;
    for (let at = 0; at < size; at++) data[at] = number(values[at % values.length]);
    return new this._ort.Tensor(dtype, data, shape);
  }
}

const alike = (names, others) => names.length === others.length && names.every((name) => others.includes(name));

const joined = (one, other) => {
  const both = new Float32Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
};
