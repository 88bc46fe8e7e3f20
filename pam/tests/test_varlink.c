#include "support.h"

#include "varlink.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connection whose other end the test holds. */
struct pair {
    struct varlink link;
    int peer;
};

static int setup(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    int fds[2];

    if (pair == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return -1;
    varlink_init(&pair->link, 5);
    pair->link.fd = fds[0];
    pair->peer = fds[1];
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0)
        return -1;
    varlink_start_clock(&pair->link);
    *state = pair;
    return 0;
}

static int teardown(void **state)
{
    struct pair *pair = *state;

    varlink_close(&pair->link);
    if (pair->peer >= 0)
        close(pair->peer);
    free(pair);
    return 0;
}

static void say(const struct pair *pair, const char *bytes, size_t length)
{
    assert_int_equal(write(pair->peer, bytes, length), (ssize_t)length);
}

static void expect_message(struct pair *pair, const char *message)
{
    const char *text = NULL;
    size_t length = 0;

    assert_int_equal(varlink_receive(&pair->link, &text, &length), VARLINK_OK);
    assert_int_equal(length, strlen(message));
    assert_memory_equal(text, message, length);
}

static void expect_fault(struct pair *pair, enum varlink_fault fault)
{
    const char *text;
    size_t length;

    assert_int_equal(varlink_receive(&pair->link, &text, &length), fault);
}

static void test_messages_are_cut_at_nul(void **state)
{
    struct pair *pair = *state;

    say(pair, "{\"a\":1}\0[]\0{\"half\":", 19);
    expect_message(pair, "{\"a\":1}");
    expect_message(pair, "[]");
    say(pair, "2}\0", 3);
    expect_message(pair, "{\"half\":2}");
    say(pair, "\0", 1);
    expect_message(pair, "");
}

static void test_end_of_file_is_told_at_once(void **state)
{
    struct pair *pair = *state;

    say(pair, "{\"half\":", 8);
    close(pair->peer);
    pair->peer = -1;
    expect_fault(pair, VARLINK_CLOSED);
}

static void test_a_whole_frame_fits_and_no_more(void **state)
{
    struct pair *pair = *state;
    char *frame = malloc(VARLINK_FRAME_MAX);
    const char *text;
    size_t length;

    memset(frame, 'x', VARLINK_FRAME_MAX);
    frame[VARLINK_FRAME_MAX - 1] = '\0';
    say(pair, frame, VARLINK_FRAME_MAX);
    assert_int_equal(varlink_receive(&pair->link, &text, &length), VARLINK_OK);
    assert_int_equal(length, VARLINK_FRAME_MAX - 1);
    frame[VARLINK_FRAME_MAX - 1] = 'x';
    say(pair, frame, VARLINK_FRAME_MAX);
    expect_fault(pair, VARLINK_TOO_LONG);
    free(frame);
}

static void test_silence_ends_at_the_deadline(void **state)
{
    struct pair *pair = *state;

    pair->link.deadline = pair->link.started;
    expect_fault(pair, VARLINK_TIMEOUT);
}

static void test_all_exchanges_share_a_budget(void **state)
{
    struct pair *pair = *state;

    pair->link.budget = 3 * pair->link.timeout;
    varlink_start_clock(&pair->link);
    assert_true(pair->link.deadline - pair->link.started == pair->link.timeout);
    pair->link.started -= 3 * pair->link.timeout; /* as if the daemon had taken all of it */
    varlink_stop_clock(&pair->link);
    assert_true(pair->link.budget == 0);
    varlink_start_clock(&pair->link);
    say(pair, "{}\0", 3);
    expect_fault(pair, VARLINK_TIMEOUT);
}

static void test_a_call_is_sent_with_its_nul_and_wiped(void **state)
{
    struct pair *pair = *state;
    char received[32];
    struct json_writer *call = varlink_new_call(&pair->link);

    json_write(call, "{\"code\":");
    json_write_string(call, "123456", 99);
    json_write(call, "}");
    assert_int_equal(varlink_send(&pair->link), VARLINK_OK);
    assert_int_equal(read(pair->peer, received, sizeof received), 18);
    assert_memory_equal(received, "{\"code\":\"123456\"}\0", 18);
    for (size_t i = 0; i < sizeof pair->link.out; i++)
        assert_int_equal(pair->link.out[i], 0);
}

static void test_a_call_that_does_not_fit_is_not_sent(void **state)
{
    struct pair *pair = *state;
    char *text = malloc(VARLINK_FRAME_MAX + 1);
    struct json_writer *call = varlink_new_call(&pair->link);

    memset(text, 'x', VARLINK_FRAME_MAX);
    text[VARLINK_FRAME_MAX] = '\0';
    json_write(call, text);
    assert_int_equal(varlink_send(&pair->link), VARLINK_SYSTEM);
    assert_int_equal(recv(pair->peer, text, 1, MSG_DONTWAIT), -1);
    free(text);
}

static void test_an_answer_before_its_question_is_refused(void **state)
{
    struct pair *pair = *state;

    say(pair, "{}\0{}\0", 6);
    expect_message(pair, "{}");
    json_write(varlink_new_call(&pair->link), "{}");
    assert_int_equal(varlink_send(&pair->link), VARLINK_NONSENSE);
    expect_message(pair, "{}");
    json_write(varlink_new_call(&pair->link), "{}");
    assert_int_equal(varlink_send(&pair->link), VARLINK_OK);

    say(pair, "{}\0", 3);
    expect_message(pair, "{}");
    say(pair, "{", 1); /* not read yet */
    json_write(varlink_new_call(&pair->link), "{}");
    assert_int_equal(varlink_send(&pair->link), VARLINK_NONSENSE);
}

static void test_a_closed_peer_raises_no_signal(void **state)
{
    struct pair *pair = *state;

    close(pair->peer);
    pair->peer = -1;
    json_write(varlink_new_call(&pair->link), "{}");
    assert_int_equal(varlink_send(&pair->link), VARLINK_CLOSED); /* SIGPIPE would have ended this test */
}

static void test_a_peer_that_does_not_read_is_left_at_the_deadline(void **state)
{
    struct pair *pair = *state;
    int size = 1;
    char *text = malloc(VARLINK_FRAME_MAX - 1);

    memset(text, ' ', VARLINK_FRAME_MAX - 2);
    text[VARLINK_FRAME_MAX - 2] = '\0';
    assert_int_equal(setsockopt(pair->link.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    pair->link.timeout = 50000000; /* 50 ms */
    varlink_start_clock(&pair->link);
    json_write(varlink_new_call(&pair->link), text);
    assert_int_equal(varlink_send(&pair->link), VARLINK_TIMEOUT);
    free(text);
}

int main(void)
{
#define WITH_PAIR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    static const struct CMUnitTest tests[] = {
        WITH_PAIR(test_messages_are_cut_at_nul),
        WITH_PAIR(test_end_of_file_is_told_at_once),
        WITH_PAIR(test_a_whole_frame_fits_and_no_more),
        WITH_PAIR(test_silence_ends_at_the_deadline),
        WITH_PAIR(test_all_exchanges_share_a_budget),
        WITH_PAIR(test_a_call_is_sent_with_its_nul_and_wiped),
        WITH_PAIR(test_a_call_that_does_not_fit_is_not_sent),
        WITH_PAIR(test_an_answer_before_its_question_is_refused),
        WITH_PAIR(test_a_closed_peer_raises_no_signal),
        WITH_PAIR(test_a_peer_that_does_not_read_is_left_at_the_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
