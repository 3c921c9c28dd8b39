// A sound card for ALSA that is a clock and a cable: what is played at an instant is what is heard at that instant. It is
// opened by one program at a time, runs at the rate it is told, and is pulled out by a file "gone" that appears; by itself as
// it starts, where there is a file "weak". Where there is a file "sound" of floats, that is what is heard, and where there is
// a file "played", it takes what is played. The instant of the first frame of either is written to "began_in" and "began_out".
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536

struct Side {
    snd_pcm_ioplug_t io;
    char folder[256];
    int lock, timer, prepared;
    double slowness, began;   // seconds
    snd_pcm_uframes_t played; // where the application has written to, or read from
    FILE *file;               // what is heard, or what is played
};

// What the cable holds, by frames since the playback began.
static float cable[MOST];
static double cable_began = -1;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int there(const struct Side *side, const char *what) {
    char path[320];
    snprintf(path, sizeof path, "%s/%s", side->folder, what);
    return access(path, F_OK) == 0;
}

static void pull(const struct Side *side) {
    char path[320];
    snprintf(path, sizeof path, "%s/gone", side->folder);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
}

static int start(snd_pcm_ioplug_t *io) {
    struct Side *side = io->private_data;
    const int playing = io->stream == SND_PCM_STREAM_PLAYBACK;
    char path[320];
    snprintf(path, sizeof path, "%s/%s", side->folder, playing ? "played" : "sound");
    if (!side->file && there(side, playing ? "played" : "sound")) side->file = fopen(path, playing ? "wb" : "rb");
    side->began = now();
    if (playing) cable_began = side->began;
    snprintf(path, sizeof path, "%s/%s", side->folder, playing ? "began_out" : "began_in");
    FILE *file = fopen(path, "w");
    if (file) {
        fprintf(file, "%.9f\n", side->began);
        fclose(file);
    }
    return 0;
}

static int stop(snd_pcm_ioplug_t *io) {
    if (io->stream == SND_PCM_STREAM_PLAYBACK) cable_began = -1;
    return 0;
}

static snd_pcm_sframes_t elapsed(const snd_pcm_ioplug_t *io) {
    const struct Side *side = io->private_data;
    return (snd_pcm_sframes_t)((now() - side->began) * io->rate / side->slowness);
}

static snd_pcm_sframes_t pointer(snd_pcm_ioplug_t *io) {
    struct Side *side = io->private_data;
    if (there(side, "gone")) return -ENODEV;
    if (side->began == 0) return 0;
    const snd_pcm_sframes_t at = elapsed(io);
    const snd_pcm_sframes_t most = (snd_pcm_sframes_t)side->played + (io->stream == SND_PCM_STREAM_CAPTURE ? (snd_pcm_sframes_t)io->buffer_size : 0);
    if (at > most) return -EPIPE;
    return at % (snd_pcm_sframes_t)io->buffer_size;
}

static snd_pcm_sframes_t transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset, snd_pcm_uframes_t size) {
    struct Side *side = io->private_data;
    for (snd_pcm_uframes_t n = 0; n < size; ++n) {
        for (unsigned c = 0; c < io->channels; ++c) {
            float *x = (float *)((char *)areas[c].addr + (areas[c].first + (offset + n) * areas[c].step) / 8);
            if (io->stream == SND_PCM_STREAM_PLAYBACK) {
                if (c == 0) cable[(side->played + n) % MOST] = *x;
                if (c == 0 && side->file) fwrite(x, sizeof *x, 1, side->file);
            } else if (side->file) {
                if (c > 0) *x = *(const float *)((const char *)areas[0].addr + (areas[0].first + (offset + n) * areas[0].step) / 8);
                else if (fread(x, sizeof *x, 1, side->file) != 1) *x = 0;
            } else {
                const double from = cable_began < 0 ? -1 : (side->began - cable_began) * io->rate / side->slowness + side->played + n;
                *x = from < 0 ? 0 : cable[(snd_pcm_uframes_t)(from + 0.5) % MOST];
            }
        }
    }
    side->played += size;
    return size;
}

static int hw_params(snd_pcm_ioplug_t *io, snd_pcm_hw_params_t *params) {
    (void)params;
    struct Side *side = io->private_data;
    const long nanoseconds = (long)(1e9 * io->period_size / io->rate / 4);
    const struct itimerspec every = {{0, nanoseconds}, {0, nanoseconds}};
    return timerfd_settime(side->timer, 0, &every, NULL);
}

static int prepare(snd_pcm_ioplug_t *io) {
    struct Side *side = io->private_data;
    // An application prepares it when it is set up, and again as it starts.
    if (++side->prepared > 1 && there(side, "weak")) pull(side);
    if (there(side, "gone")) return -ENODEV;
    side->played = 0;
    side->began = 0;
    return 0;
}

static int poll_revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned count, unsigned short *events) {
    struct Side *side = io->private_data;
    unsigned long long ticks;
    (void)count;
    if (read(side->timer, &ticks, sizeof ticks) < 0) ticks = 0;
    *events = 0;
    if (there(side, "gone")) {
        *events = POLLERR;
        return 0;
    }
    if (fds[0].revents && snd_pcm_avail_update(io->pcm) >= (snd_pcm_sframes_t)io->period_size)
        *events = io->stream == SND_PCM_STREAM_PLAYBACK ? POLLOUT : POLLIN;
    return 0;
}

static int closed(snd_pcm_ioplug_t *io) {
    struct Side *side = io->private_data;
    if (side->file) fclose(side->file);
    close(side->timer);
    close(side->lock);
    free(side);
    return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
    .start = start, .stop = stop, .pointer = pointer, .transfer = transfer, .close = closed,
    .hw_params = hw_params, .prepare = prepare, .poll_revents = poll_revents,
};

SND_PCM_PLUGIN_DEFINE_FUNC(astrape_card) {
    (void)root;
    const char *folder = "/nowhere";
    long rate = 48000, slowness = 1;
    snd_config_iterator_t i, next;
    snd_config_for_each(i, next, conf) {
        snd_config_t *entry = snd_config_iterator_entry(i);
        const char *id;
        if (snd_config_get_id(entry, &id) < 0) continue;
        if (!strcmp(id, "folder")) snd_config_get_string(entry, &folder);
        if (!strcmp(id, "rate")) snd_config_get_integer(entry, &rate);
        if (!strcmp(id, "slowness")) snd_config_get_integer(entry, &slowness);
    }
    struct Side *side = calloc(1, sizeof *side);
    snprintf(side->folder, sizeof side->folder, "%s", folder);
    side->slowness = slowness;
    char path[320];
    snprintf(path, sizeof path, "%s/%s", folder, stream == SND_PCM_STREAM_PLAYBACK ? "out" : "in");
    int failed = there(side, "gone") ? ENODEV : there(side, "denied") ? EACCES : 0;
    side->lock = failed ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (!failed && side->lock < 0) failed = errno;
    if (!failed && flock(side->lock, LOCK_EX | LOCK_NB) < 0) failed = EBUSY;
    if (failed) {
        if (side->lock >= 0) close(side->lock);
        free(side);
        return -failed;
    }
    side->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    side->io.version = SND_PCM_IOPLUG_VERSION;
    side->io.name = "a card of the tests";
    side->io.poll_fd = side->timer;
    side->io.poll_events = POLLIN;
    side->io.mmap_rw = 0;
    side->io.callback = &callbacks;
    side->io.private_data = side;
    failed = snd_pcm_ioplug_create(&side->io, name, stream, mode);
    if (failed < 0) return failed;
    static const unsigned access_list[] = {SND_PCM_ACCESS_RW_INTERLEAVED};
    static const unsigned formats[] = {SND_PCM_FORMAT_FLOAT_LE};
    snd_pcm_ioplug_set_param_list(&side->io, SND_PCM_IOPLUG_HW_ACCESS, 1, access_list);
    snd_pcm_ioplug_set_param_list(&side->io, SND_PCM_IOPLUG_HW_FORMAT, 1, formats);
    snd_pcm_ioplug_set_param_minmax(&side->io, SND_PCM_IOPLUG_HW_CHANNELS, 1, 2);
    snd_pcm_ioplug_set_param_minmax(&side->io, SND_PCM_IOPLUG_HW_RATE, rate, rate);
    snd_pcm_ioplug_set_param_minmax(&side->io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 128, 65536);
    snd_pcm_ioplug_set_param_minmax(&side->io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 256, 262144);
    *pcmp = side->io.pcm;
    return 0;
}
SND_PCM_PLUGIN_SYMBOL(astrape_card);
