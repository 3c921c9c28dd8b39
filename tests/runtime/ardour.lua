-- A session of Ardour, without its face: ardour7-lua ardour.lua make|again FOLDER RATE BLOCK PRESET
--
-- The same noise on two tracks, one of them with the plugin on it. The track with the plugin goes to the master's first
-- channel and the other to its second, past faders and panners, and the master is exported: what the host's delay
-- compensation leaves between the two channels is seen in one file. `told` is followed by a name and by frames.

local what, folder, rate, block, preset = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4]), arg[5]
local user, alone = ARDOUR.TransportRequestSource.TRS_UI, PBD.GroupControlDisposition.NoGroup

local function wait(for_what, is_so)
  for _ = 1, 1200 do
    if is_so() then return end
    sleep(0.1)
  end
  error("waited for nothing: " .. for_what)
end

local function start_engine()
  local backend = AudioEngine:set_backend("None (Dummy)", "astrape", "")
  backend:set_driver("10x Speed")
  backend:set_device_name("Uniform White Noise")
  backend:set_buffer_size(block)
end

local function insert_of(track)
  local insert = track:nth_plugin(0):to_insert()
  assert(not insert:isnil(), "the plugin is gone")
  return insert
end

-- Parameters are counted among the controls, of which the latency is one.
local function set(track, label, value)
  local plugin, number = insert_of(track):plugin(0), 0
  for i = 0, plugin:parameter_count() - 1 do
    if plugin:parameter_is_control(i) then
      if plugin:parameter_label(i) == label then
        assert(ARDOUR.LuaAPI.set_processor_param(track:nth_plugin(0), number, value))
        return
      end
      number = number + 1
    end
  end
  error("no parameter " .. label)
end

local function export(session, track, name)
  local latency = insert_of(track):signal_latency()
  local job = session:simple_export()
  assert(job:set_preset(preset), "no preset")
  job:set_folder(folder .. "/out")
  job:set_name(name)
  job:set_range(0, 3 * rate)
  assert(job:run_export(), "no export")
  print("told", name, latency, insert_of(track):signal_latency(), session:worst_route_latency())
end

local function changed(track, label, value)
  local before = insert_of(track):signal_latency()
  set(track, label, value)
  wait("another latency", function() return insert_of(track):signal_latency() ~= before end)
end

start_engine()
if what == "again" then
  -- The session as it is found when it is opened again, in a process of its own: Ardour 7 hangs where it ends a second one.
  local session = load_session(folder .. "/session", "session")
  assert(session, "no session again")
  export(session, session:route_by_name("wet"), "again")
  close_session()
  return
end

local session = create_session(folder .. "/session", "session", rate)
assert(session, "no session")
assert(session:get_block_size() == block, "another block")
ARDOUR.config():set_output_auto_connect(0)
local master, tracks = session:master_out(), {}
for channel, name in ipairs({"wet", "dry"}) do
  local track = session:new_audio_track(1, 1, nil, 1, name, ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true, false):front()
  track:output():disconnect_all(nil)
  assert(track:output():audio(0):connect(master:input():audio(channel - 1):name()) == 0, "not connected")
  tracks[name] = track
end
local wet, dry = tracks.wet, tracks.dry

-- Three seconds of noise onto the one, and the same from the same file onto the other.
assert(dry:input():audio(0):connect("system:capture_1") == 0, "no noise")
dry:rec_enable_control():set_value(1, alone)
session:maybe_enable_record(false)
session:request_roll(user)
wait("noise", function() return session:transport_sample() > 3 * rate end)
session:request_stop(false, false, user)
wait("a region", function() return session:transport_stopped() and dry:playlist():region_list():size() > 0 end)
dry:rec_enable_control():set_value(0, alone)
for region in dry:playlist():region_list():iter() do
  wet:playlist():add_region(ARDOUR.RegionFactory.clone_region(region, true, false), region:position(), 1, false)
end
for _, track in pairs(tracks) do
  for region in track:playlist():region_list():iter() do
    region:to_audioregion():set_fade_in_active(false)
    region:to_audioregion():set_fade_out_active(false)
  end
end

local plugin = ARDOUR.LuaAPI.new_plugin(session, "urn:astrape:voice-mono", ARDOUR.PluginType.LV2, "")
assert(not plugin:isnil(), "no plugin")
assert(wet:add_processor_by_index(plugin, 0, nil, true) == 0, "the plugin was not added")

-- The voice that ships, of which nothing is heard but the sound as it came.
set(wet, "Mix", 0)
sleep(1)
export(session, wet, "unmixed")
set(wet, "Mix", 100)
sleep(1)
export(session, wet, "voice")
-- Another package and a worker, chosen while the engine runs: the latency changes.
changed(wet, "Package", 1)
export(session, wet, "wire")
changed(wet, "Worker", block < rate // 100 and 1 or 2)
export(session, wet, "worker")
session:save_state("", false, false, false, false, false)
close_session()
