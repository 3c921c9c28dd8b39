// Sound in and out of the browser. What goes out is what came in a fixed number of frames before, converted: a block is
// played at its own place, never sooner and never later, and one that is not there in time is silence and counted.
class Wire extends AudioWorkletProcessor {
  constructor(options) {
    super();
    const { block, wait } = options.processorOptions;
    this.block = block;
    this.wait = wait;
    this.at = 0;
    this.late = 0;
    this.begun = false;
    this.heard = new Float32Array(block);
    this.played = new Float32Array(block);
    this.ring = new Float32Array(wait + 2 * block);
    this.there = new Set();
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take({ number, samples }) {
    const start = number * this.block;
    this.begun = true;
    if (start + this.wait < this.at) return;
    for (let i = 0; i < samples.length; i++) this.ring[(start + i) % this.ring.length] = samples[i];
    this.there.add(number);
  }

  // One sample of what goes out, if its block is there.
  play(output, i) {
    output[i] = 0;
    const from = this.at - this.wait;
    if (from < 0) return;
    const number = Math.floor(from / this.block);
    const ready = this.there.has(number);
    if (ready) output[i] = this.ring[from % this.ring.length];
    if (from % this.block !== this.block - 1) return;
    if (!ready && this.begun) this.port.postMessage({ late: ++this.late });
    this.there.delete(number);
  }

  process(inputs, outputs) {
    const input = inputs[0][0];
    const output = outputs[0];
    const frames = output[0].length;
    for (let i = 0; i < frames; i++, this.at++) {
      const place = this.at % this.block;
      this.heard[place] = input ? input[i] : 0;
      this.play(output[0], i);
      this.played[place] = output[0][i];
      if (place === this.block - 1) {
        this.port.postMessage({
          number: (this.at - place) / this.block, samples: this.heard.slice(), played: this.played.slice(),
        });
      }
    }
    for (let c = 1; c < output.length; c++) output[c].set(output[0]);
    return true;
  }
}

registerProcessor("wire", Wire);
