#include "write-gate.h"

#include "ring.h"

namespace cowherd {

bool WriteGate::enter(Request* request) {
  std::lock_guard<std::mutex> lock(mutex_);
  // First come, first served: a newcomer overtakes nobody it would conflict with.
  for (const Request* waiting = waitingFirst_; waiting != nullptr; waiting = waiting->next) {
    if ((waiting->gateExclusive || request->gateExclusive) &&
        waiting->gated.overlaps(request->gated)) {
      request->next = nullptr;
      waitingLast_->next = request;
      waitingLast_ = request;
      return false;
    }
  }
  if (!conflicts(request)) {
    admit(request);
    return true;
  }
  request->next = nullptr;
  if (waitingLast_ == nullptr) {
    waitingFirst_ = request;
  } else {
    waitingLast_->next = request;
  }
  waitingLast_ = request;
  return false;
}

void WriteGate::leave(Request* request) {
  std::lock_guard<std::mutex> lock(mutex_);
  request->inGate = false;
  if (request->gateExclusive) exclusiveCount_ -= 1;
  if (request->gatePrevious != nullptr) request->gatePrevious->gateNext = request->gateNext;
  if (request->gateNext != nullptr) request->gateNext->gatePrevious = request->gatePrevious;
  if (active_ == request) active_ = request->gateNext;

  Request* waiting = waitingFirst_;
  waitingFirst_ = nullptr;
  waitingLast_ = nullptr;
  while (waiting != nullptr) {
    Request* const next = waiting->next;
    waiting->next = nullptr;
    bool blocked = conflicts(waiting);
    for (const Request* earlier = waitingFirst_; earlier != nullptr && !blocked;
         earlier = earlier->next) {
      blocked = (earlier->gateExclusive || waiting->gateExclusive) &&
                earlier->gated.overlaps(waiting->gated);
    }
    if (blocked) {
      if (waitingLast_ == nullptr) {
        waitingFirst_ = waiting;
      } else {
        waitingLast_->next = waiting;
      }
      waitingLast_ = waiting;
    } else {
      admit(waiting);
      waiting->ring->resume(waiting);
    }
    waiting = next;
  }
}

Request* WriteGate::abandon(const Ring* ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  Request* taken = nullptr;
  Request** link = &waitingFirst_;
  waitingLast_ = nullptr;
  while (*link != nullptr) {
    Request* const request = *link;
    if (request->ring == ring) {
      *link = request->next;
      request->next = taken;
      taken = request;
    } else {
      waitingLast_ = request;
      link = &request->next;
    }
  }
  return taken;
}

bool WriteGate::conflicts(const Request* request) const {
  if (exclusiveCount_ == 0 && !request->gateExclusive) return false;
  for (const Request* other = active_; other != nullptr; other = other->gateNext) {
    if ((other->gateExclusive || request->gateExclusive) &&
        other->gated.overlaps(request->gated)) {
      return true;
    }
  }
  return false;
}

void WriteGate::admit(Request* request) {
  request->inGate = true;
  if (request->gateExclusive) exclusiveCount_ += 1;
  request->gatePrevious = nullptr;
  request->gateNext = active_;
  if (active_ != nullptr) active_->gatePrevious = request;
  active_ = request;
}

}  // namespace cowherd
