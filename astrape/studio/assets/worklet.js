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
    this.ring = new Float32Array(1 << 18);
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

  process(inputs, outputs) {
    const input = inputs[0][0];
    const output = outputs[0];
    const frames = output[0].length;
    for (let i = 0; i < frames; i++, this.at++) {
      const place = this.at % this.block;
      this.heard[place] = input ? input[i] : 0;
      if (place === this.block - 1) this.port.postMessage({ number: (this.at - place) / this.block, samples: this.heard.slice() });
      const from = this.at - this.wait;
      if (from < 0) continue;
      const number = Math.floor(from / this.block);
      const ready = this.there.has(number);
      output[0][i] = ready ? this.ring[from % this.ring.length] : 0;
      if (from % this.block === this.block - 1) {
        if (!ready && this.begun) this.port.postMessage({ late: ++this.late });
        this.there.delete(number);
      }
    }
    for (let c = 1; c < output.length; c++) output[c].set(output[0]);
    return true;
  }
}

registerProcessor("wire", Wire);
