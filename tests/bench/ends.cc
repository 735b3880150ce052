// The two ends of a stream, so that what is between them can be measured: ends in Python are slower than most of that.
//
//   ends serve TEMPLATE ADDRESS...   the provider's end, which streams what the prompt asks for
//   ends call TEMPLATE ADDRESS N     the caller's end: N times the request that is on standard input
//
// TEMPLATE is a message with one event, in hex. Every message is like it, but for the time that its text begins with:
// nanoseconds of the monotonic clock, in as many digits as the template has zeros in a row.
//
// Prompts: "burst EVENTS", "paced SECONDS EVENTS_PER_SECOND", "hold". The caller's end says "begun" once every stream
// has, and at the end, as JSON, how many events came in how many seconds, and how long each took in microseconds.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <mutex>
#include <queue>
#include <random>
#include <string>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;
using Then = std::function<void(bool)>;

namespace {

constexpr size_t kDigits = 19;
const std::string kStartTurn = "/alive.agent.v1.AgentService/StartTurn";

void* then(Then what) { return new Then(std::move(what)); }

// Does what is due on a queue, for ever.
void run(grpc::CompletionQueue& queue) {
  void* tag;
  bool ok;
  while (queue.Next(&tag, &ok)) {
    std::unique_ptr<Then> due(static_cast<Then*>(tag));
    (*due)(ok);
  }
}

grpc::ByteBuffer buffer(const std::string& text) {
  grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string found;
  if (!buffer.Dump(&slices).ok()) return found;
  for (const auto& slice : slices) found.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return found;
}

int64_t now() { return Clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

// What every message looks like.
struct Template {
  std::string message;
  size_t place;

  explicit Template(const std::string& hex) {
    for (size_t at = 0; at + 1 < hex.size(); at += 2) message += char(std::stoi(hex.substr(at, 2), nullptr, 16));
    place = message.find(std::string(kDigits, '0'));
    if (place == std::string::npos) throw std::invalid_argument("the template has no place for the time");
  }

  std::string stamped() const {
    std::string digits = std::to_string(now());
    std::string stamped = message;
    return stamped.replace(place, kDigits, std::string(kDigits - digits.size(), '0') + digits);
  }
};

// The provider's end.
class Provider {
 public:
  Provider(const Template& like, const std::vector<std::string>& addresses) : like_(like), plain_(buffer(like.message)) {
    grpc::ServerBuilder builder;
    for (const auto& address : addresses) builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterAsyncGenericService(&service_);
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    if (!server_) throw std::runtime_error("cannot listen");
  }

  void serve() {
    std::thread pacing([this] { pace(); });
    accept();
    run(*queue_);
    pacing.join();
  }

 private:
  struct Stream {
    grpc::GenericServerContext context;
    grpc::GenericServerAsyncReaderWriter io{&context};
    grpc::ByteBuffer request;
    int64_t left = 0;
    Clock::duration period{};
    std::atomic<bool> is_writing{false};
    std::atomic<bool> is_over{false};
    bool is_counted = false;
  };
  using Held = std::shared_ptr<Stream>;
  struct Due {
    Clock::time_point time;
    Held stream;
    bool operator<(const Due& other) const { return time > other.time; }
  };

  void accept() {
    auto stream = std::make_shared<Stream>();
    stream->context.AsyncNotifyWhenDone(then([this, stream](bool) {
      stream->is_over = true;
      running_ -= stream->is_counted;
    }));
    service_.RequestCall(&stream->context, &stream->io, queue_.get(), queue_.get(), then([this, stream](bool ok) {
      if (!ok) return;
      accept();
      stream->io.Read(&stream->request, then([this, stream](bool ok) {
        if (ok) begin(stream);
      }));
    }));
  }

  void begin(const Held& stream) {
    const std::string& method = stream->context.method();
    if (method == kStartTurn) {
      start(stream, text(stream->request));
    } else if (method == "/bench.Ends/Running") {
      stream->io.WriteAndFinish(buffer(std::to_string(running_)), {}, grpc::Status::OK, then([stream](bool) {}));
    } else {  // WatchOutcomes: there are none, and what asks for them waits.
      stream->io.SendInitialMetadata(then([stream](bool) {}));
    }
  }

  void start(const Held& stream, const std::string& request) {
    stream->is_counted = true;
    ++running_;
    double seconds = 0, rate = 0;
    size_t at;
    if ((at = request.find("burst ")) != std::string::npos) {
      stream->left = std::stoll(request.substr(at + 6));
      burst(stream);
    } else if ((at = request.find("paced ")) != std::string::npos) {
      std::sscanf(request.c_str() + at, "paced %lf %lf", &seconds, &rate);
      stream->left = std::llround(seconds * rate);
      stream->period = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / rate));
      // Turns have nothing to do with each other: each has its own moment.
      const double part = std::uniform_real_distribution<>()(chance_);
      plan({Clock::now() + std::chrono::duration_cast<Clock::duration>(stream->period * part), stream});
    } else {
      stream->io.Write(plain_, then([stream](bool) {}));
    }
  }

  void burst(const Held& stream) {
    if (!stream->left--) return finish(stream);
    stream->io.Write(plain_, then([this, stream](bool ok) {
      if (ok) burst(stream);
    }));
  }

  void plan(const Due& due) {
    std::lock_guard<std::mutex> guard(lock_);
    planned_.push(due);
    changed_.notify_one();
  }

  void pace() {
    std::unique_lock<std::mutex> guard(lock_);
    while (true) {
      if (planned_.empty()) {
        changed_.wait(guard);
      } else if (planned_.top().time > Clock::now()) {
        changed_.wait_until(guard, planned_.top().time);
      } else {
        Due due = planned_.top();
        planned_.pop();
        if (due.stream->is_over) continue;
        bool is_late = due.stream->is_writing;  // Its reader stalls.
        if (!is_late && !due.stream->left--) {
          finish(due.stream);
          continue;
        }
        if (!is_late) say(due.stream);
        due.time += is_late ? std::chrono::milliseconds(1) : due.stream->period;
        planned_.push(due);
      }
    }
  }

  void say(const Held& stream) {
    stream->is_writing = true;
    stream->io.Write(buffer(like_.stamped()), then([stream](bool) { stream->is_writing = false; }));
  }

  void finish(const Held& stream) { stream->io.Finish(grpc::Status::OK, then([stream](bool) {})); }

  const Template& like_;
  const grpc::ByteBuffer plain_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<int> running_{0};
  std::mt19937 chance_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::priority_queue<Due> planned_;
};

// The caller's end.
class Caller {
 public:
  Caller(const Template& like, const std::string& address) : like_(like) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    if (!channel_->WaitForConnected(deadline())) throw std::runtime_error("cannot connect to " + address);
    stub_ = std::make_unique<grpc::GenericStub>(channel_);
  }

  void call(const std::string& request, int streams) {
    request_ = buffer(request);
    waiting_ = running_ = streams;
    const auto began = Clock::now();
    for (int number = 0; number < streams; ++number) start();
    run(queue_);
    const std::chrono::duration<double> took = ended_ - began;
    std::cout << "{\"events\": " << events_ << ", \"seconds\": " << took.count() << ", \"latencies\": [";
    for (size_t at = 0; at < latencies_.size(); ++at) std::cout << (at ? "," : "") << latencies_[at];
    std::cout << "]}" << std::endl;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> io;
    grpc::ByteBuffer message;
    grpc::Status status;
    bool has_begun = false;
  };

  static std::chrono::system_clock::time_point deadline() {
    return std::chrono::system_clock::now() + std::chrono::seconds(10);
  }

  void start() {
    auto call = std::make_shared<Call>();
    call->io = stub_->PrepareCall(&call->context, kStartTurn, &queue_);
    call->io->StartCall(then([this, call](bool) {
      call->io->WriteLast(request_, {}, then([this, call](bool) { read(call); }));
    }));
  }

  void read(const std::shared_ptr<Call>& call) {
    call->io->Read(&call->message, then([this, call](bool ok) {
      if (!ok) return call->io->Finish(&call->status, then([this, call](bool) { end(call->status); }));
      take(text(call->message));
      if (!call->has_begun && !--waiting_) std::cout << "begun" << std::endl;
      call->has_begun = true;
      read(call);
    }));
  }

  void take(const std::string& message) {
    const size_t size = like_.message.size();
    if (message.size() % size) throw std::runtime_error("a message is not made of events like the template");
    for (size_t at = 0; at < message.size(); at += size, ++events_) {
      const int64_t sent = std::stoll(message.substr(at + like_.place, kDigits));
      if (sent) latencies_.push_back((now() - sent) / 1e3);
    }
  }

  void end(const grpc::Status& status) {
    if (!status.ok()) throw std::runtime_error(status.error_message());
    if (--running_) return;
    ended_ = Clock::now();
    queue_.Shutdown();
  }

  const Template& like_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
  grpc::ByteBuffer request_;
  int waiting_ = 0, running_ = 0;
  int64_t events_ = 0;
  Clock::time_point ended_;
  std::vector<double> latencies_;
};

}  // namespace

int main(int count, char** words) try {
  const std::vector<std::string> given(words + 1, words + count);
  if (given.size() < 3) throw std::invalid_argument("ends serve TEMPLATE ADDRESS... | ends call TEMPLATE ADDRESS N");
  const Template like(given[1]);
  if (given[0] == "serve") {
    Provider(like, {given.begin() + 2, given.end()}).serve();
  } else {
    const std::string request(std::istreambuf_iterator<char>(std::cin), {});
    Caller(like, given[2]).call(request, std::stoi(given.at(3)));
  }
} catch (const std::exception& error) {
  std::cerr << "ends: " << error.what() << std::endl;
  return 2;
}
